"""Parity: exported graphs against their references in PyTorch."""
