"""Search: find pages, find pictures, open a page."""
