"""Errors of the CARLA environment."""


class SimulatorLost(RuntimeError):
    """The simulator ended, or did not answer within the time-out. It can be replaced by another."""


class CarlaSetupError(ValueError):
    """A mistake in the configuration: an unknown town, an impossible camera, an impossible route."""
