"""Localizers beside the public code of their authors, on the same seeded weights."""
