"""Recordings of what a search backend answered, to be repeated without keys or network."""
