"""What a benchmark runs in processes of its own."""
