"""Streams of frames: cameras that deliver faster than one inspection ends."""
