"""Checks of plugins and tasks before a long run; a run itself uses none of them."""
