"""The calls about traffic: lights, and the traffic managers that run in clients. As in `calls`."""

from typing import Any

from envs.carla.standin.lights import GREEN, RED, YELLOW, Light
from envs.carla.standin.protocol import CallError, numbers
from envs.carla.standin.world import World


class LightCalls:
    """What clients may ask about the traffic lights of `world`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def set_traffic_light_state(self, identity: int, state: int) -> None:
        """Show a colour."""
        if state not in range(5):
            raise ValueError(f"traffic light state {state}: expected 0 to 4")
        self._world.lights.set(self._light(identity), int(state))

    def set_traffic_light_green_time(self, identity: int, seconds: float) -> None:
        """How long green lasts."""
        self._light(identity).times[GREEN] = numbers([seconds])[0]

    def set_traffic_light_yellow_time(self, identity: int, seconds: float) -> None:
        """How long yellow lasts."""
        self._light(identity).times[YELLOW] = numbers([seconds])[0]

    def set_traffic_light_red_time(self, identity: int, seconds: float) -> None:
        """How long all have red between two greens."""
        self._light(identity).times[RED] = numbers([seconds])[0]

    def freeze_traffic_light(self, identity: int, frozen: bool) -> None:
        """Stop a light's clock."""
        self._light(identity).frozen = bool(frozen)

    def freeze_all_traffic_lights(self, frozen: bool) -> None:
        """Stop every light's clock."""
        for light in self._world.lights.all.values():
            light.frozen = bool(frozen)

    def reset_traffic_light_group(self, identity: int) -> None:
        """Start all cycles anew: junctions are few."""
        self._light(identity)
        self._world.lights.reset()

    def reset_all_traffic_lights(self) -> None:
        """Start all cycles anew."""
        self._world.lights.reset()

    def get_group_traffic_lights(self, identity: int) -> list[int]:
        """Lights of the same junction."""
        return self._world.lights.group(self._light(identity))

    def get_light_boxes(self, identity: int) -> list[Any]:
        """Boxes around a light's lamps: none."""
        self._light(identity)
        return []

    def _light(self, identity: int) -> Light:
        if identity not in self._world.lights.all:
            raise CallError(f"actor {identity} is no traffic light")
        return self._world.lights.all[identity]


class ManagerCalls:
    """Who has a traffic manager at which port, so that clients can share one.

    They are forgotten with the connection that made them known: a dead one would keep its port.
    """

    def __init__(self) -> None:
        self._managers: dict[int, tuple[str, object]] = {}
        self._caller: object = None

    def serve(self, caller: object) -> None:
        """Whose calls come next; no call itself."""
        self._caller = caller

    def forget(self, caller: object) -> None:
        """A client has left, and its traffic managers with it; no call itself."""
        self._managers = {port: known for port, known in self._managers.items() if known[1] is not caller}

    def is_traffic_manager_running(self, port: int) -> bool:
        """Whether a client has one at a port."""
        return port in self._managers

    def get_traffic_manager_running(self, port: int) -> list[Any]:
        """Address and port of the one at a port."""
        return [self._managers[port][0], port] if port in self._managers else ["", 0]

    def add_traffic_manager_running(self, where: list[Any]) -> bool:
        """Make one known; False when there is one at that port."""
        address, port = where
        if port in self._managers:
            return False
        self._managers[port] = address, self._caller
        return True

    def destroy_traffic_manager(self, port: int) -> bool:
        """Forget one."""
        return self._managers.pop(port, None) is not None
