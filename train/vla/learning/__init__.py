"""Learning from demonstrations, and from dreams of one's own chunks."""
