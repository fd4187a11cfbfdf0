"""A client of OpenAI-compatible chat endpoints, with images, cached replies and paid calls."""
