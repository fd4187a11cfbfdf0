"""Search services: Wikimedia and SearXNG without a key, Serper, Tavily and Brave with one, and Jina's reader."""
