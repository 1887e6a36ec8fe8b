"""Jobs that drive in CARLA: collecting episodes there."""
