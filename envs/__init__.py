"""The environments, all behind Gymnasium's interfaces: CarRacing, CARLA, and a world model's dream."""

TRAINING_SEEDS = 1_000_000
"""Training uses seeds below this number, evaluation this one and those above."""
