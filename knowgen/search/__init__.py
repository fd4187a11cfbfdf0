"""Search backends: find pages, find images, open a page."""
