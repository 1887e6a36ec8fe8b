"""Scaling laws: a ladder of sizes, trained on equal data, and the power law through it."""
