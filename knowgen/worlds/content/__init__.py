"""What a world holds: names, entities, facts, pages, prompts, samples and the images to search."""
