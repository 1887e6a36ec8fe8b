"""The simulated world: a map, its actors, and the tick that advances them."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from envs.carla.standin import collisions, protocol
from envs.carla.standin.actors import Actor, Description, Pose, Vehicle, attached
from envs.carla.standin.blueprints import CARS, definitions
from envs.carla.standin.ground import GRASS, SIDEWALK, Ground
from envs.carla.standin.lights import Light, Lights, volume
from envs.carla.standin.protocol import Settings
from envs.carla.standin.roadmap import RoadMap, Signal
from envs.carla.standin.scenery import Boxes, Scenery, lamps
from envs.carla.standin.sensors import Sensor
from envs.carla.standin.vehicle import BicycleState, advance
from envs.carla.standin.weather import Weather

_Some = TypeVar("_Some", bound=Actor)
_LIMIT_EVERY = 8  # ticks between two looks at a car's speed limit


@dataclass(frozen=True)
class StaticScene:
    """The static parts of a map: roads, ground and scenery."""

    roads: RoadMap
    ground: Ground
    scenery: Scenery

    @staticmethod
    def of(roads: RoadMap) -> "StaticScene":
        """Ground and scenery of a map; takes about a second."""
        ground = Ground(roads)
        return StaticScene(roads, ground, Scenery(roads, ground))


class World:
    """One simulated world. `wanted(stream)` tells whether a client reads a stream, `send(stream, bytes)`
    sends to its readers."""

    def __init__(self, scene: StaticScene, seed: int, stream_port: int) -> None:
        self.seed = seed
        self.stream_port = stream_port
        self.blueprints = definitions()
        self.settings = Settings()
        self.frame = 0
        self.time = 0.0
        self.episode = 0
        self._numbers = itertools.count(1)
        self.wanted: Callable[[int], bool] = lambda stream: False
        self.send: Callable[[int, bytes], None] = lambda stream, data: None
        self.load(scene, reset_settings=True)

    def load(self, scene: StaticScene, reset_settings: bool) -> None:
        """Begin a new episode on a map, with its traffic lights and the spectator as the only actors."""
        self.scene = scene
        self.roads, self.ground, self.scenery = scene.roads, scene.ground, scene.scenery
        self.episode += 1
        self.time = 0.0
        self.weather = Weather()
        if reset_settings:
            self.settings = Settings()
        self.actors: dict[int, Actor] = {}
        self._shown: tuple[tuple[int, ...], Boxes] = ((), self.scenery.boxes)
        self.lights = Lights([self._light(signal) for signal in self.roads.signals], self.seed)
        self.spectator = self._add(
            Actor(next(self._numbers), [0, "spectator", []], (0, 0, 50.0, -90.0, 0, 0))
        )

    def spawn(self, description: Description, pose: Pose, parent: int = 0) -> Actor:
        """Add an actor. Raises `protocol.CallError` if that is impossible."""
        _, kind, attributes = description
        description = [description[0], str(kind), [[str(a), int(b), str(c)] for a, b, c in attributes]]
        if parent and parent not in self.actors:
            raise protocol.CallError(f"unable to attach {kind}: there is no actor {parent}")
        identity = next(self._numbers)
        if kind in CARS:
            motion = BicycleState(pose[0], pose[1], math.radians(pose[4]))
            vehicle = Vehicle(
                identity, description, pose, parent, car=CARS[kind], motion=motion, height=pose[2]
            )
            if collisions.blocked(vehicle, self.vehicles(), self.scenery):
                raise protocol.CallError("Spawn failed because of collision at spawn position")
            _, _, vehicle.limit = self.roads.ground(pose[0], pose[1])
            return self._add(vehicle)
        if kind.startswith("sensor."):
            stream = next(self._numbers) if kind in protocol.STREAM_TYPES else 0
            return self._add(Sensor.create(identity, description, pose, parent, stream))
        raise protocol.CallError(f"the stand-in for CARLA has no blueprint {kind}")

    def destroy(self, identity: int) -> bool:
        """Remove an actor and those attached to it; False if there is none."""
        if identity not in self.actors or identity in self.lights.all or identity == self.spectator.identity:
            return False
        del self.actors[identity]
        for child in [actor.identity for actor in self.actors.values() if actor.parent == identity]:
            self.destroy(child)
        return True

    def place(self, actor: Actor, pose: Pose) -> None:
        """Move an actor; one attached to another in the frame of its parent."""
        if isinstance(actor, Vehicle):
            actor.place(pose)
        elif isinstance(actor, Sensor) and actor.parent:
            actor.relative = pose
        elif actor.identity not in self.lights.all:
            actor.pose = pose

    def vehicles(self) -> list[Vehicle]:
        """The cars, by id."""
        return [actor for actor in self.actors.values() if isinstance(actor, Vehicle)]

    def standing(self) -> Boxes:
        """Boxes of the scenery, with the traffic lights in their present states."""
        lights = list(self.lights.all.values())
        states = tuple(light.state for light in lights)
        if states != self._shown[0]:
            self._shown = (states, self.scenery.boxes + lamps(lights))
        return self._shown[1]

    def tick(self) -> float:
        """Advance one step and send it to all streams; returns its length [s]."""
        step = self.settings.step
        self.frame += 1
        self.time += step
        self.lights.advance(step)
        vehicles = self.vehicles()
        for vehicle in vehicles:
            self._drive(vehicle, step)
        hits = collisions.resolve(vehicles, self.scenery)
        for vehicle in vehicles:
            vehicle.settle()
        sensors = [actor for actor in self.actors.values() if isinstance(actor, Sensor)]
        for sensor in sensors:
            parent = self.actors.get(sensor.parent)
            if parent is not None:
                sensor.pose = attached(parent.pose, sensor.relative)
        for sensor in sensors:
            if sensor.stream and sensor.due(step) and self.wanted(sensor.stream):
                for body in sensor.measure(self, hits):
                    kind = protocol.STREAM_TYPES[sensor.kind]
                    data = protocol.frame_bytes(kind, self.frame, self.time, sensor.pose, body)
                    self.send(sensor.stream, data)
        self.send(0, self.observation())
        return step

    def observation(self) -> bytes:
        """The state of the world as the observer's message."""
        states = [self._state(actor) for actor in self.actors.values()]
        body = protocol.episode_state(self.episode, self.time, self.settings.step, states)
        return protocol.frame_bytes(protocol.OBSERVER, self.frame, self.time, (0.0,) * 6, body)

    def _add(self, actor: _Some) -> _Some:
        self.actors[actor.identity] = actor
        return actor

    def _light(self, signal: Signal) -> Light:
        pose = (signal.x, signal.y, signal.z, 0.0, signal.yaw - 90.0, 0.0)  # CARLA's x lies across the road
        light = Actor(next(self._numbers), [0, "traffic.traffic_light", []], pose, volume=volume(signal))
        actor = self._add(light)
        return Light(actor.identity, signal)

    def _drive(self, vehicle: Vehicle, step: float) -> None:
        motion, before = vehicle.motion, (vehicle.motion.vx, vehicle.motion.vy)
        if vehicle.moving:
            throttle, steer, brake, hand, reverse, _, _ = vehicle.control
            dry = self.ground.kind(motion.x, motion.y) not in (GRASS, SIDEWALK)
            if vehicle.constant is not None:
                motion.speed = vehicle.constant
            advance(motion, throttle, steer, brake, hand, reverse, vehicle.base, dry, step)
        else:
            motion.speed = motion.turning = motion.vx = motion.vy = 0.0
        vehicle.acceleration = ((motion.vx - before[0]) / step, (motion.vy - before[1]) / step)
        if not self.roads.flat or self.frame % _LIMIT_EVERY == vehicle.identity % _LIMIT_EVERY:
            vehicle.height, vehicle.pitch, vehicle.limit = self.roads.ground(motion.x, motion.y)
        elif vehicle.moving:
            vehicle.height, vehicle.pitch = self.roads.height, 0.0
        light = self.lights.at(motion.x, motion.y, motion.yaw)
        vehicle.light = (light.identity, light.state) if light else None

    def _state(self, actor: Actor) -> bytes:
        if isinstance(actor, Vehicle):
            return actor.state()
        light = self.lights.all.get(actor.identity)
        if light is None:
            return protocol.actor_state(actor.identity, actor.pose, (0.0,) * 9)
        times = (light.times[2], light.times[1], light.times[0])
        detail = protocol.light_detail(light.signal.sign, light.state, times, light.elapsed, light.frozen)
        return protocol.actor_state(actor.identity, actor.pose, (0.0,) * 9, detail)
