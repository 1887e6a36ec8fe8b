"""The environments, all behind Gymnasium's interfaces: CarRacing, CARLA, and a world model's dream."""
