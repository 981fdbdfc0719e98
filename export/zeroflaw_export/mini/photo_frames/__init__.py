"""Frames from real photos and textures, good ones and ones with synthetic anomalies and masks."""
