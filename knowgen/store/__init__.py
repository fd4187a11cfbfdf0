"""The store: a run directory that survives anything; import and export of result files."""
