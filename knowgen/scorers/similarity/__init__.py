"""Image similarity: embeddings of CLIP and DINO models, and measures of pixels."""
