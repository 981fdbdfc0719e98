"""Masks of the decoder's logits, and their regions."""
