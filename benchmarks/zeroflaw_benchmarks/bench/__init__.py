"""`zeroflaw bench`: how fast a bundle is here, what it is made of, how far from the limit."""
