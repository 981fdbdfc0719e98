"""The first half of an inspection: what the encoders say of frames."""
