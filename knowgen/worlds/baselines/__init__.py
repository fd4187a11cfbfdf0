"""Four reference systems on one painter: noise, closed_book, open_book and oracle."""
