"""What gives an anomaly map and an image score: a module of its own for each method."""
