"""Learning while driving: collect, replay, update, evaluate."""
