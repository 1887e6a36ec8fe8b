"""Driving in CARLA, or in the stand-in that speaks its protocol.

Importing this registers `dreamdrive/Carla-v0` with Gymnasium. The extra `carla` is needed to drive, not to
import.
"""

import gymnasium

ENV_ID = "dreamdrive/Carla-v0"


def register() -> None:
    """Make `gymnasium.make("dreamdrive/Carla-v0", port=...)` known; a second time does nothing."""
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(id=ENV_ID, entry_point="envs.carla.env:CarlaEnv")


register()
