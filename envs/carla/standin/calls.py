"""Remote procedure calls of the server, each a method with its name on the wire.

A method that returns None answers `Response<void>`, any other `Response<T>` with its result. It raises
`protocol.CallError` if it fails. Calls about traffic are in `traffic`.
"""

from collections.abc import Callable
from typing import Any

from envs.carla.standin import protocol
from envs.carla.standin.actors import Actor, Pose, Vehicle
from envs.carla.standin.protocol import CallError, Settings, numbers
from envs.carla.standin.roadmap import TOWNS, MapError, RoadMap, town_text
from envs.carla.standin.vehicle import MAX_STEER
from envs.carla.standin.weather import Weather
from envs.carla.standin.world import StaticScene, World

_FOREIGN = "OpenDriveMap"  # CARLA's name for a map sent by a client


class Calls:
    """Calls on `world`. `version`: the one that the server reports."""

    def __init__(self, world: World, version: str) -> None:
        self._world = world
        self._port = world.stream_port
        self._version = version
        self._brought: RoadMap | None = None
        self._scenes = {world.roads.name: world.scene}

    # the session

    def version(self) -> str:
        """Version of the server."""
        return self._version

    def get_episode_info(self) -> list[Any]:
        """Id of the episode, and where to read its state."""
        return [self._world.episode, [protocol.token(0, self._port)]]

    def get_sensor_token(self, stream: int) -> list[Any]:
        """Where to read a stream."""
        return [protocol.token(stream, self._port)]

    def get_episode_settings(self) -> list[Any]:
        """The settings."""
        return self._world.settings.wire()

    def set_episode_settings(self, values: list[Any]) -> int:
        """Change the settings; answers the frame from which they apply."""
        self._world.settings = Settings.from_wire(values)
        return self._world.frame

    def tick_cue(self) -> int:
        """Tick; answers the number of the new frame."""
        self._world.tick()
        return self._world.frame

    def get_weather_parameters(self) -> list[float]:
        """The weather."""
        return self._world.weather.wire()

    def set_weather_parameters(self, values: list[Any]) -> None:
        """Change the weather."""
        self._world.weather = Weather.from_wire(values)

    # maps

    def get_available_maps(self) -> list[str]:
        """Paths of the towns."""
        return [f"/Game/Carla/Maps/{name}" for name in TOWNS]

    def get_map_info(self) -> list[Any]:
        """Name of the map, and its spawn points."""
        roads = self._world.roads
        starts = [[[x, y, z], [0.0, yaw, 0.0]] for x, y, z, yaw in roads.spawns]
        return [f"Carla/Maps/{roads.name}", starts]

    def get_map_data(self) -> str:
        """The map's OpenDRIVE text."""
        return self._world.roads.text

    def load_new_episode(self, name: str, reset_settings: bool, layers: int) -> None:
        """Load a map by its name or path."""
        # "": the map that is loaded
        short = name.replace("\\", "/").rsplit("/", 1)[-1] or self._world.roads.name
        try:
            if short == _FOREIGN and self._brought is not None:
                self._scenes[short], self._brought = StaticScene.of(self._brought), None
            elif short not in self._scenes:
                self._scenes[short] = StaticScene.of(RoadMap(short, town_text(short)))
        except MapError as error:
            raise CallError(f"Map '{name}' not found: {error}") from error
        self._world.load(self._scenes[short], reset_settings)

    def copy_opendrive_to_file(self, text: str, parameters: list[Any]) -> None:
        """Receive a map from the client, to be loaded next."""
        try:
            self._brought = RoadMap(_FOREIGN, text)
        except MapError as error:
            raise CallError(f"opendrive could not be correctly parsed: {error}") from error

    def get_required_files(self, which: Any) -> list[Any]:
        """None: no file to download, object to switch off, bounding box of the level or street lamp."""
        return []

    get_environment_objects = get_all_level_BBs = query_lights_state = get_required_files

    # actors

    def get_actor_definitions(self) -> list[Any]:
        """The blueprints."""
        return self._world.blueprints

    def get_spectator(self) -> list[Any]:
        """The spectator."""
        return self._world.spectator.wire(self._port)

    def get_actors_by_id(self, identities: list[int]) -> list[Any]:
        """The actors with these ids that exist."""
        actors = self._world.actors
        return [actors[identity].wire(self._port) for identity in identities if identity in actors]

    def get_actor_bounding_box(self, identity: int) -> list[Any]:
        """Bounding box of an actor."""
        return self._actor(identity).box()

    def spawn_actor(self, description: list[Any], transform: list[Any]) -> list[Any]:
        """Spawn an actor."""
        return self._world.spawn(description, _pose(transform)).wire(self._port)

    def spawn_actor_with_parent(
        self, description: list[Any], transform: list[Any], parent: int, attachment: int, socket: str
    ) -> list[Any]:
        """Spawn an actor attached to another one; a spring arm is rigid here."""
        return self._world.spawn(description, _pose(transform), parent).wire(self._port)

    def destroy_actor(self, identity: int) -> bool:
        """Destroy an actor; False if there is none."""
        return self._world.destroy(identity)

    def set_actor_transform(self, identity: int, transform: list[Any]) -> None:
        """Move an actor; an attached sensor in the frame of its parent."""
        self._world.place(self._actor(identity), _pose(transform))

    def set_actor_location(self, identity: int, location: list[float]) -> None:
        """Move an actor and keep its rotation."""
        actor = self._actor(identity)
        x, y, z = numbers(location)
        self._world.place(actor, (x, y, z, *actor.pose[3:]))

    def set_actor_target_velocity(self, identity: int, velocity: list[float]) -> None:
        """Set the velocity of a car [m/s]; only the part along its heading counts."""
        self._car(identity).push(numbers(velocity))

    def enable_actor_constant_velocity(self, identity: int, velocity: list[float]) -> None:
        """Keep a car at a constant speed along its heading [m/s]."""
        self._car(identity).constant = numbers(velocity)[0]

    def disable_actor_constant_velocity(self, identity: int) -> None:
        """Return to throttle and brake."""
        self._car(identity).constant = None

    def set_actor_simulate_physics(self, identity: int, enabled: bool) -> None:
        """Let a car move, or hold it in place."""
        actor = self._actor(identity)
        if isinstance(actor, Vehicle):
            actor.moving = bool(enabled)

    def set_actor_enable_gravity(self, identity: int, given: Any) -> None:
        """No effect: actors stand on the ground, cars collide, and yaw rates follow from the wheels."""
        self._actor(identity)

    set_actor_collisions = set_actor_target_angular_velocity = set_actor_enable_gravity

    # cars

    def apply_control_to_vehicle(self, identity: int, control: list[Any]) -> None:
        """Set throttle, steer, brake, hand brake, reverse, manual gear shift, gear."""
        if len(control) != 7:
            raise ValueError(f"{len(control)} fields of a VehicleControl, expected 7")
        self._car(identity).control = [
            *numbers(control[:3]),
            *map(bool, control[3:6]),
            int(numbers(control[6:])[0]),
        ]

    def set_actor_autopilot(self, identity: int, given: Any) -> None:
        """No effect: the Traffic Manager drives in the client, and cars keep their own physics."""
        self._car(identity)

    apply_physics_control = set_actor_autopilot

    def get_physics_control(self, identity: int) -> list[Any]:
        """`VehiclePhysicsControl`: the largest wheel angle is exact, the rest is typical of a car."""
        vehicle = self._car(identity)
        ahead, aside = 50.0 * vehicle.base, 95.0 * vehicle.car.width  # CARLA gives wheels in centimetres
        x, y, z = (100.0 * value for value in vehicle.pose[:3])
        wheels = [
            protocol.wheel(MAX_STEER if front > 0 else 0.0, [x + front * ahead, y + side * aside, z])
            for front in (1, -1)
            for side in (-1, 1)
        ]
        return protocol.physics(1500.0, wheels)

    def get_vehicle_light_state(self, identity: int) -> int:
        """Lights of a car that are on, as CARLA's bits."""
        return self._car(identity).lamps

    def set_vehicle_light_state(self, identity: int, lamps: int) -> None:
        """Switch the lights of a car."""
        self._car(identity).lamps = int(lamps)

    def get_vehicle_light_states(self) -> list[list[int]]:
        """Lights of every car that are on."""
        return [[vehicle.identity, vehicle.lamps] for vehicle in self._world.vehicles()]

    # several at once

    def apply_batch(self, commands: list[Any], tick: bool) -> list[Any]:
        """Execute commands in order; answers the id of an actor or an error for each."""
        answers = []
        for command in commands:
            try:
                [(number, fields)] = command
                answers.append(protocol.value(self._command(number, fields)))
            except (CallError, *protocol.MISTAKES) as error:
                answers.append(protocol.failed(str(error), void=False))
        if tick:
            self._world.tick()
        return answers

    def _command(self, number: int, fields: list[Any]) -> int:
        """Execute one command of CARLA's `Command` variant; id 0 in `do_after` is the actor just spawned."""
        if number == 0:
            description, transform, (attached, *parent), *_, after = fields
            actor = self._world.spawn(description, _pose(transform), parent[0] if attached else 0)
            for [(then, rest)] in after:
                self._command(then, [actor.identity, *rest[1:]])
            return actor.identity
        identity = int(fields[0])
        if number == 1:
            if not self._world.destroy(identity):
                raise CallError(f"unable to destroy actor: there is no actor {identity}")
        elif number in _COMMANDS:
            _COMMANDS[number](self, *fields)
        else:
            raise CallError(f"the stand-in for CARLA has no command {number} in a batch")
        return identity

    def _actor(self, identity: int) -> Actor:
        if identity not in self._world.actors:
            raise CallError(f"there is no actor {identity}")
        return self._world.actors[identity]

    def _car(self, identity: int) -> Vehicle:
        actor = self._actor(identity)
        if not isinstance(actor, Vehicle):
            raise CallError(f"actor {identity} is no vehicle but {actor.kind}")
        return actor


def _pose(transform: list[Any]) -> Pose:
    place, rotation = transform
    x, y, z = numbers(place)
    pitch, yaw, roll = numbers(rotation)
    return x, y, z, pitch, yaw, roll


# CARLA's `Command` variant by number; others (walkers, Ackermann control, forces) are refused.
_COMMANDS: dict[int, Callable[..., None]] = {
    2: Calls.apply_control_to_vehicle,
    5: Calls.apply_physics_control,
    6: Calls.set_actor_transform,
    8: Calls.set_actor_target_velocity,
    9: Calls.set_actor_target_angular_velocity,
    14: Calls.set_actor_simulate_physics,
    15: Calls.set_actor_enable_gravity,
    16: Calls.set_actor_autopilot,
    18: Calls.set_vehicle_light_state,
}
