"""What a session on a built engine is made of: the engine, its contexts, and its kernel cache."""
