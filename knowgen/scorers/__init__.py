"""Scorers: the contract, VLM judges, and measures of similarity."""
