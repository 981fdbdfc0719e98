"""The method, step by step, as plain functions: from a frame to its score map and regions."""
