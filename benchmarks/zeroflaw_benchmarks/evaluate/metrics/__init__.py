"""What is measured of score maps and image scores."""
