"""What is verified by trying it: commands that print what they saw."""
