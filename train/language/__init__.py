"""Instructions: their phrasings, what they mean, their vectors, and what an episode turned out to obey."""
