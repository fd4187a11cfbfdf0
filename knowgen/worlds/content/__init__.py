"""Content of a world: names, entities, facts, pages, prompts, samples and the images to search."""
