"""Sessions: one loaded engine each, on whatever backend runs it."""
