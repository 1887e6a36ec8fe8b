"""What can go wrong between dreamdrive and a simulator."""


class SimulatorLost(RuntimeError):
    """The simulator vanished, or did not answer within the time-out. A new one may do better."""


class CarlaSetupError(ValueError):
    """A mistake of the user's: an unknown town, an impossible camera, a route that cannot be planned."""
