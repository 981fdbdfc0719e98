"""Large frames with small defects: the same frames as a whole and in tiles."""
