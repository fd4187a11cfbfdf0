"""Drawing of made-up things: looks, scenes, signs and whole compositions, the same bytes for the same seed."""
