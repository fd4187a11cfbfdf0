"""Shared foundations: what every package may import."""
