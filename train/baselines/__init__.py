"""Baselines: Stable-Baselines3 algorithms on the same environments, or in a world model's dream."""
