"""Four baseline systems: noise (random pixels), and closed_book, open_book and oracle, which share one painter."""
