"""Episodes in files and the replay buffer: where sequences come from."""
