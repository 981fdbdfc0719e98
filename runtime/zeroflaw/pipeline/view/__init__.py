"""How a frame is looked at: aligned with a reference photo, cut to zones, and in tiles."""
