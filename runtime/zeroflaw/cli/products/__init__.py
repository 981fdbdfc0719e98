"""`zeroflaw products`: listing, adding, learning and forgetting products, and their settings."""
