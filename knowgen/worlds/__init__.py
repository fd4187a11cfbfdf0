"""Synthetic worlds: benchmarks generated from a seed, registered like any plugin."""
