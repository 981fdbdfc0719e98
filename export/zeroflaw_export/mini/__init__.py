"""The making of `mini`, the demonstration model: drawn frames in, trained bundle out."""
