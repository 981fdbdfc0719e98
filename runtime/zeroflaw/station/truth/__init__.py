"""What is known of the defects of photos: masks from a folder, and inspections against them."""
