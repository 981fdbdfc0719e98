"""Training of the linear adapters."""
