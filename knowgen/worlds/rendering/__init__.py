"""Rendering of synthetic images: appearances, scenes, signs and compositions, identical for the same seed."""
