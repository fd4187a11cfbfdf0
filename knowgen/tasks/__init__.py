"""Tasks: where samples and their ground truths come from."""
