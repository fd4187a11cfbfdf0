"""The checks of submissions: files, content, figures, images, and what follows from comparing them with others."""
