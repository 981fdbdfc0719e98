"""The machine under a benchmark: its rates, its state, its noise."""
