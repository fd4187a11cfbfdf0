"""Where plugin code runs: in this process or in worker processes."""
