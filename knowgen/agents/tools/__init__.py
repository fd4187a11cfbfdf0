"""Tools that an agent can call: text search, image search, browsing, and those of plugins."""
