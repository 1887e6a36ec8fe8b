"""Remote procedure calls about traffic lights and about the Traffic Managers in clients. See `calls`."""

from typing import Any

from envs.carla.standin.lights import GREEN, RED, YELLOW, Light
from envs.carla.standin.protocol import CallError, numbers
from envs.carla.standin.world import World


class LightCalls:
    """Calls about the traffic lights of `world`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def set_traffic_light_state(self, identity: int, state: int) -> None:
        """Set the state of a light."""
        if state not in range(5):
            raise ValueError(f"traffic light state {state}: expected 0 to 4")
        self._light(identity).show(int(state))

    def set_traffic_light_green_time(self, identity: int, seconds: float) -> None:
        """Set the duration of green."""
        self._light(identity).times[GREEN] = numbers([seconds])[0]

    def set_traffic_light_yellow_time(self, identity: int, seconds: float) -> None:
        """Set the duration of yellow."""
        self._light(identity).times[YELLOW] = numbers([seconds])[0]

    def set_traffic_light_red_time(self, identity: int, seconds: float) -> None:
        """Set how long all have red between two greens."""
        self._light(identity).times[RED] = numbers([seconds])[0]

    def freeze_traffic_light(self, identity: int, frozen: bool) -> None:
        """Stop the clock of a light."""
        self._light(identity).frozen = bool(frozen)

    def freeze_all_traffic_lights(self, frozen: bool) -> None:
        """Stop the clocks of all lights."""
        for light in self._world.lights.all.values():
            light.frozen = bool(frozen)

    def reset_traffic_light_group(self, identity: int) -> None:
        """Restart all cycles, not only that of the junction."""
        self._light(identity)
        self._world.lights.reset()

    def reset_all_traffic_lights(self) -> None:
        """Restart all cycles."""
        self._world.lights.reset()

    def get_group_traffic_lights(self, identity: int) -> list[int]:
        """Ids of the lights at the same junction."""
        return self._world.lights.group(self._light(identity))

    def get_light_boxes(self, identity: int) -> list[Any]:
        """Bounding boxes of the lamps of a light: none."""
        self._light(identity)
        return []

    def _light(self, identity: int) -> Light:
        if identity not in self._world.lights.all:
            raise CallError(f"actor {identity} is no traffic light")
        return self._world.lights.all[identity]


class ManagerCalls:
    """Registry of the Traffic Managers in clients by port, so that clients can share one.

    An entry is removed with the connection that registered it: a dead one would block its port.
    """

    def __init__(self) -> None:
        self._managers: dict[int, tuple[str, object]] = {}
        self._caller: object = None

    def serve(self, caller: object) -> None:
        """Set the client whose calls follow; not a call itself."""
        self._caller = caller

    def forget(self, caller: object) -> None:
        """Remove the Traffic Managers of a client that disconnected; not a call itself."""
        self._managers = {port: known for port, known in self._managers.items() if known[1] is not caller}

    def is_traffic_manager_running(self, port: int) -> bool:
        """Whether a Traffic Manager is registered at a port."""
        return port in self._managers

    def get_traffic_manager_running(self, port: int) -> list[Any]:
        """Address and port of the Traffic Manager at a port."""
        return [self._managers[port][0], port] if port in self._managers else ["", 0]

    def add_traffic_manager_running(self, where: list[Any]) -> bool:
        """Register a Traffic Manager; False if there is one at that port."""
        address, port = where
        if port in self._managers:
            return False
        self._managers[port] = address, self._caller
        return True

    def destroy_traffic_manager(self, port: int) -> bool:
        """Remove a Traffic Manager."""
        return self._managers.pop(port, None) is not None
