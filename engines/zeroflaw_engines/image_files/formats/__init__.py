"""The readers of image files, one module for each format."""
