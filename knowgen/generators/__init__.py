"""Generators: the adapter contract and bundled adapters."""
