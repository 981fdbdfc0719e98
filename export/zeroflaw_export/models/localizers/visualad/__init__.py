"""VisualAD (CVPR 2026, arXiv 2603.07952): a map without texts, from two learned tokens."""
