"""Gymnasium's CarRacing as a vector environment: simulators, observation, action repeat, tracks."""
