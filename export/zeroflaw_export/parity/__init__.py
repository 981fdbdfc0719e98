"""Parity: exported graphs against the PyTorch originals."""
