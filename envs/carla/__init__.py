"""CARLA as a Gymnasium environment, in the real simulator or a stand-in that speaks its protocol.

Importing this package registers `dreamdrive/Carla-v0`. The extra `carla` is needed to drive, not to import.
"""

import gymnasium

ENV_ID = "dreamdrive/Carla-v0"


def register() -> None:
    """Register the environment for `gymnasium.make("dreamdrive/Carla-v0", port=...)`, once."""
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(id=ENV_ID, entry_point="envs.carla.env:CarlaEnv")


register()
