"""Search on the web: what lies between the hits of a search service and the contract of a search backend."""
