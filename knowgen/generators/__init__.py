"""Generators: their contract, and the bundled ones for diffusers, hosted services and HTTP servers."""
