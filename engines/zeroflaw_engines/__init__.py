"""The contract of the engines, the bundle that carries them, and the sessions that run them."""
