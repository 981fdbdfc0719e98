"""What turns an anomaly map and SAM's features into a mask and a score map: a module a refiner."""
