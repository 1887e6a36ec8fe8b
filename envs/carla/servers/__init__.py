"""Processes around CARLA: servers, clients, their supervision, and environments of several simulators."""
