"""A generator offered to others over HTTP: `knowgen serve`."""
