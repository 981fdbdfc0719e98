"""What a station does between shifts and keeps on its disk: products, thresholds, results."""
