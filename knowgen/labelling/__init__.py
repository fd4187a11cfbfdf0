"""People as judges: a local page on which images are rated or compared, and what follows from the labels."""
