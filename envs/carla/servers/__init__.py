"""Processes that serve carla, and who restarts them."""
