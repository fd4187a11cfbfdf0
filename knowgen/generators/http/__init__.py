"""Generators behind servers of the `/generate` format."""
