"""CARLA servers and the processes that talk to them: started, watched, replaced."""
