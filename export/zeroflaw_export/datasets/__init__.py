"""Data sets of good and defective images with masks: their layouts and their samples."""
