"""Training of the RSSM world model on recorded driving; its names are in `train_world_model`."""
