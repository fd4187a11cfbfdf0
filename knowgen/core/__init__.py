"""What every other package may use: records and keys, errors, caches, files, images and text."""
