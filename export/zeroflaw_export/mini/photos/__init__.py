"""Real photos and surfaces that `mini` is trained on: free licences, fetched, never shipped."""
