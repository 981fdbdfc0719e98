"""The products of a bundle: their names, their settings, and changing them."""
