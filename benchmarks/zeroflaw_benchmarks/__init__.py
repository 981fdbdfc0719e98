"""Benchmarks: what is measured, and the commands that print it."""
