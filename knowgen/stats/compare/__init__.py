"""Paired comparison of systems: differences, intervals, tests, effect sizes."""
