"""Worlds: made-up benchmarks from a seed, registered like any plugin."""
