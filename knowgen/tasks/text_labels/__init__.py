"""Labels that say which prompts demand text in the image."""
