"""Configs of the CARLA environment: town, traffic, sensors, actions, route, servers."""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from envs.carla.ends import EndsConfig
from envs.carla.ports import split_address
from envs.carla.reward import CarlaRewardConfig

PORT_PLACEHOLDER = "{port}"
"""Stands for the port of a server's calls in the command that starts it."""
ACTION_SIZES = {"2d": 2, "3d": 3}


class CameraConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Mounting and field of view of the cameras. CARLA's axes of the car: x forward, y right, z up."""

    fov: float = Field(90.0, gt=0, lt=180)
    """Horizontal field of view [degrees]."""
    x: float = 1.5
    """Ahead of the car's centre [m]."""
    y: float = 0.0
    """To the right of the car's centre [m]."""
    z: float = 1.7
    """Above the ground [m]."""
    pitch: float = Field(-8.0, ge=-90, le=90)
    """Up is positive [degrees]."""


class BirdseyeConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """The bird's-eye view: lanes, route and traffic around the car from above, with its heading up."""

    metres: float = Field(32.0, gt=0)
    """Side of the square that the picture shows [m]."""
    ahead: float = Field(0.75, ge=0, le=1)
    """Share of the square that lies ahead of the car."""


class TrafficConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """The other cars, driven by CARLA's Traffic Manager."""

    vehicles: Annotated[int, "may change on resume"] = Field(0, ge=0)
    """Other cars in the town; fewer where the town has too few spawn points."""
    speed_difference: Annotated[float, "may change on resume"] = Field(30.0, le=100)
    """How far below the speed limit the Traffic Manager drives [%]; negative values are above it."""
    distance: Annotated[float, "may change on resume"] = Field(3.0, ge=0)
    """Gap to the car in front that the Traffic Manager keeps [m]."""
    ignore_lights: Annotated[float, "may change on resume"] = Field(0.0, ge=0, le=100)
    """How often the Traffic Manager's cars run a red light [%]."""


class RouteConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """The route: drawn from the episode's seed, or fixed by its two ends."""

    length: Annotated[float, "may change on resume"] = Field(300.0, gt=0)
    """Length of a random route [m], extended until it ends clear of junctions; shorter if the road ends
    before."""
    spacing: float = Field(1.0, ge=0.2, le=5.0)
    """Between two points of the route [m]."""
    start: Annotated[tuple[float, float] | None, "may change on resume"] = None
    """x and y of a fixed start, moved to the nearest lane [m]; needs `goal`."""
    goal: Annotated[tuple[float, float] | None, "may change on resume"] = None
    """x and y of a fixed goal, moved to the nearest lane [m]; needs `start`."""
    ahead: int = Field(8, ge=0)
    """Number of points of the route ahead in the observation "state"."""
    ahead_spacing: float = Field(4.0, gt=0)
    """Between two of them [m]."""

    @model_validator(mode="after")
    def _both_ends(self) -> "RouteConfig":
        if (self.start is None) != (self.goal is None):
            raise ValueError("start, goal: give both or none")
        return self


class ServerConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """The CARLA servers; by default stand-ins, started as needed."""

    command: Annotated[str, "may change on resume", "only its user may say this program"] = ""
    """Command line that starts the real simulator, with `{port}` for the port of its calls. Empty: CARLA in
    the folder that the environment variable CARLA_ROOT names, or else the stand-in."""
    addresses: Annotated[list[str], "may change on resume", "only its user may say this address"] = []
    """HOST:PORT of servers that run already, one for each env; none is started then."""
    port: Annotated[int, "may change on resume", "only its user may say this address"] = Field(
        0, ge=0, le=65_000
    )
    """Port of the first server that is started, the next ones ten apart; 0 picks free ones."""
    map: Annotated[str, "may change on resume", "only its user may say a path here"] = ""
    """Map that the stand-in starts with, by name, or an OpenDRIVE file (.xodr); empty: its default."""
    start_seconds: Annotated[float, "may change on resume"] = Field(60.0, gt=0)
    """A server that does not answer this long after its start is stopped and started again [s]."""
    patience_seconds: Annotated[float, "may change on resume"] = Field(300.0, gt=0)
    """How long to wait for the replacement of a lost simulator before the error [s]."""
    max_pause_seconds: Annotated[float, "may change on resume"] = Field(30.0, gt=0)
    """Longest pause between two attempts to start a server; the first is 1 s, each next twice as long [s]."""

    @model_validator(mode="after")
    def _consistent(self) -> "ServerConfig":
        if self.command and PORT_PLACEHOLDER not in self.command:
            raise ValueError(f"command {self.command!r}: expected {PORT_PLACEHOLDER} where its port belongs")
        if self.command and self.addresses:
            raise ValueError("command, addresses: expected one of them, servers run already or are started")
        for address in self.addresses:
            split_address(address)
        return self


class CarlaConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """An episode of driving in CARLA: town, car, sensors, actions, reward, ends and servers."""

    fixed_on_resume: ClassVar[str] = "the replay's observations and steps were made with it"

    kind: Literal["carla"] = "carla"
    """The kind of environment."""
    num_envs: Annotated[int, "fixed on resume: the replay has a stream for each simulator"] = Field(1, ge=1)
    """Simulators stepped at the same time, each with a server of its own."""
    town: Annotated[str | list[str], "may change on resume"] = "town"
    """Map by the server's name for it; of several, each episode draws one. Empty: the map that the server
    has loaded."""
    weather: Annotated[str | list[str], "may change on resume"] = "ClearNoon"
    """Name of one of CARLA's weather presets, such as `ClearNoon` or `HardRainSunset`; of several, each
    episode draws one."""
    vehicle: str = "vehicle.tesla.model3"
    """Blueprint of the car."""
    step_seconds: float = Field(0.1, ge=0.01, le=0.1)
    """Simulated time of a frame [s]. CARLA's physics needs at most 0.1."""
    action_repeat: int = Field(1, ge=1)
    """Frames in a decision."""
    max_frames: Annotated[int, "may change on resume"] = Field(500, ge=1)
    """Time limit of an episode [frames]: truncates."""
    image_size: int = Field(64, ge=16, le=2048)
    """Side of every square picture [px]."""
    image: bool = True
    """Observe the picture of the front camera: "image" (3, S, S) uint8, RGB."""
    semantic: bool = False
    """Observe the semantic segmentation of the same view: "semantic" (1, S, S) uint8, CARLA's tags."""
    birdseye: bool = False
    """Observe the bird's-eye view: "birdseye" (3, S, S) uint8."""
    state: bool = True
    """Observe a vector with speed, steering and the route ahead: "state" (D,) float32."""
    action: Literal["2d", "3d", "discrete"] = "2d"
    """`2d`: steer, accelerate or brake; `3d`: steer, throttle, brake; all in [-1, 1]. `discrete`: one of
    the pairs of `discrete_steer` and `discrete_pedal`."""
    discrete_steer: list[float] = [-0.6, -0.3, -0.1, 0.0, 0.1, 0.3, 0.6]
    """Steering of the discrete actions, in [-1, 1], right is positive."""
    discrete_pedal: list[float] = [-0.5, 0.0, 0.6]
    """Pedal of the discrete actions, in [-1, 1], negative brakes."""
    camera: CameraConfig = CameraConfig()
    """The cameras."""
    above: BirdseyeConfig = BirdseyeConfig()
    """The bird's-eye view."""
    route: RouteConfig = RouteConfig()
    """The route."""
    traffic: TrafficConfig = TrafficConfig()
    """The other cars."""
    reward: CarlaRewardConfig = CarlaRewardConfig()
    """Weights of the reward's terms."""
    ends: EndsConfig = EndsConfig()
    """Terminations of an episode."""
    timeout_seconds: Annotated[float, "may change on resume"] = Field(10.0, gt=0)
    """A simulator that does not answer a call within this time is lost [s]."""
    servers: ServerConfig = ServerConfig()
    """The servers, and how they are started."""

    @model_validator(mode="after")
    def _consistent(self) -> "CarlaConfig":
        if not (self.image or self.semantic or self.birdseye or self.state):
            raise ValueError("image, semantic, birdseye, state: expected at least one of them on")
        for name in ("town", "weather", "discrete_steer", "discrete_pedal"):
            if getattr(self, name) == []:
                raise ValueError(f"{name}: expected at least one")
        for name in ("discrete_steer", "discrete_pedal"):
            if any(not math.isfinite(v) or abs(v) > 1 for v in getattr(self, name)):
                raise ValueError(f"{name}: expected numbers in [-1, 1]")
        return self

    @property
    def action_size(self) -> int:
        """Length of an action; number of discrete actions."""
        if self.action == "discrete":
            return len(self.discrete_steer) * len(self.discrete_pedal)
        return ACTION_SIZES[self.action]

    @property
    def state_size(self) -> int:
        """Length of the observation "state"."""
        return 6 + 2 * self.route.ahead

    @property
    def towns(self) -> list[str]:
        """The maps to choose from."""
        return [self.town] if isinstance(self.town, str) else self.town

    @property
    def weathers(self) -> list[str]:
        """The weather presets to choose from."""
        return [self.weather] if isinstance(self.weather, str) else self.weather
