"""The static site of boards: pages, data and exports that open from a folder without a network."""
