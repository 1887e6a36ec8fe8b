"""What is driven: Gymnasium's interfaces and nothing of our own invention."""
