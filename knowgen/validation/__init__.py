"""Checks of generators, scorers and tasks before a long run: `knowgen check`. A run never imports this package."""
