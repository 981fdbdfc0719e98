"""A few good photos as reference: which are drawn, and what they give."""
