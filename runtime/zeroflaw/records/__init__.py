"""What is decided of a frame, on what grounds, and what is kept of it."""
