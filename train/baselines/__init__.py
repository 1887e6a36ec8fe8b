"""Train/baselines and train/online under their field's names."""
