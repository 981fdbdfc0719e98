"""References: the method in PyTorch and by brute force, and the models behind a bundle."""
