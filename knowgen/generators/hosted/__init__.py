"""Image models of hosted services."""
