"""Official weights: downloaded, checked, and read without running what is in them."""
