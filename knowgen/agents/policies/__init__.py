"""Policies: what decides the next step of an agent."""
