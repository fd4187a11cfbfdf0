"""The engine: runs a specification and hands every result to the store."""
