"""The run directory: SQLite database, images by content, manifest and lock."""
