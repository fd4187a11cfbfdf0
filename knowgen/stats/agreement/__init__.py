"""Agreement of scorers with each other and with human raters."""
