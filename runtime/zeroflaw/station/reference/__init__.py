"""The parts of learning a product: its photos, what is kept of them, their scores, the plan."""
