"""What a station keeps on its disk: the pictures it finds, and the results it writes."""
