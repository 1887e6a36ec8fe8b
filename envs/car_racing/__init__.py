"""CarRacing-v3 as a vector environment: simulators, observations, frame skip, tracks."""
