"""CARLA as a Gymnasium environment: one car on a route, with reward and ends, in one simulator."""

import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from envs.carla.actions import Actions
from envs.carla.autopilot_target import AutopilotTarget
from envs.carla.birdseye import CAR, EGO, Birdseye, Box, light_bar
from envs.carla.config import CarlaConfig
from envs.carla.episode import RouteEpisode
from envs.carla.errors import CarlaSetupError, SimulatorLost
from envs.carla.ports import Address, is_listening
from envs.carla.route import Route
from envs.carla.simulator import Simulator, check_version
from envs.carla.state import carla_observation_space, carla_state_vector, gap_to_car_ahead

_OPTIONS = {"drive_autopilot", "autopilot_targets", "town", "weather", "start", "goal"}
_FIRST_PICTURE_SECONDS = 2.0  # wait for the first picture, before another frame is tried [s]
_PATH_EVERY = 10  # the autopilot gets its path again after this many frames [frames]
_POLL_SECONDS = 0.1  # between two attempts to connect to a server that is starting
_TRIES = 10  # starts that are tried if others are blocked


class CarlaEnv(gymnasium.Env[Any, Any]):
    """One car on a route through a town.

    Observations, as the config switches them on: "image" (3, S, S), "semantic" (1, S, S) and "birdseye"
    (3, S, S), uint8, and "state" (D,) float32, all of exactly the same frame of the simulator. Actions are
    those of `Actions`. A decision lasts `action_repeat` frames, whose rewards are summed.

    Infos: "frame", of the episode, 0 at its start; "position" (x, y, z [m], yaw [degrees]); "speed" [m/s];
    "route_completion" in [0, 1]; "route_length" [m]; "in_lane", whether the car's centre is in its route's
    lane; "lane_offset" from the lane's middle, left positive [m], and "half_width" of the lane [m];
    "manoeuvre", the next one of the route ("left", "right", "straight", "change", or ""), and
    "route_manoeuvres", all of them; "infractions", counts by kind since the start; "town" and "weather";
    after a step "frames", their number, "terms", the terms of the reward by name, and "applied_action" (A,),
    the action applied in the last frame; at the end "reason" (collision, red_light, off_lane, stuck, goal; or
    time, the only one that truncates). If the autopilot drives, "autopilot_action" (A,) is the same as
    "applied_action".

    Args:
        config: what to drive.
        host, port: the CARLA server; it is used exclusively.
        traffic_port: a free port for the Traffic Manager.
        seed: of all random choices, unless `reset` is given another.

    Raises:
        SimulatorLost: the simulator does not answer in time; also from `reset` and `step`. The environment
            cannot be used afterwards.
        CarlaSetupError: an option of the config is impossible; also from `reset`.
    """

    def __init__(
        self,
        config: CarlaConfig | None = None,
        host: str = "127.0.0.1",
        port: int = 2000,
        traffic_port: int = 8000,
        seed: int = 0,
    ) -> None:
        self.config = config or CarlaConfig()
        self.metadata = {"render_modes": [], "render_fps": round(1 / self.config.step_seconds)}
        self._actions = Actions(self.config)
        self.action_space = self._actions.space
        self.observation_space = carla_observation_space(self.config)
        self._seed: int | None = seed
        self._episode: RouteEpisode | None = None
        self._simulator = Simulator(self.config, Address(host, port, traffic_port))
        # Even if Python exits early, the simulator must not stay synchronous, waiting for ticks.
        self._finish = weakref.finalize(self, _close, self._simulator)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Start an episode: town, weather, route and traffic are drawn from the seed.

        Options: "drive_autopilot" (bool) lets the Traffic Manager drive along the route: then `step` with the
        `hands_off` of `Actions` applies its control, and any other action overrides it for that decision.
        "autopilot_targets" is a list of `AutopilotTarget`, one for each decision; the last one holds to the
        end of the episode. "town", "weather", "start" and "goal" replace the config's.

        Raises:
            CarlaSetupError: an unknown option, or an impossible value.
            SimulatorLost: see the class; also if all starts tried are blocked, since a new connection removes
                all cars.
        """
        given = options or {}
        if unknown := set(given) - _OPTIONS:
            raise CarlaSetupError(
                f"reset option {min(unknown)}: expected one of {', '.join(sorted(_OPTIONS))}"
            )
        super().reset(seed=self._seed if seed is None else seed)
        # The seed is set for the first episode; later ones continue its random stream.
        self._seed = None
        self._episode = None
        towns, weathers = self.config.towns, self.config.weathers
        town = towns[int(self.np_random.integers(len(towns)))]
        weather = weathers[int(self.np_random.integers(len(weathers)))]
        self._weather = str(given.get("weather", weather))
        self._autopilot = bool(given.get("drive_autopilot", False))
        self._targets: Sequence[AutopilotTarget] = given.get("autopilot_targets", ())
        if self._targets and not self._autopilot:
            raise CarlaSetupError("reset option autopilot_targets: expected drive_autopilot, too")
        simulator = self._simulator
        simulator.clear()
        simulator.load(str(given.get("town", town)), self._weather)
        route = self._spawn(
            given.get("start", self.config.route.start), given.get("goal", self.config.route.goal)
        )
        simulator.settle()
        if self._autopilot:
            simulator.traffic.enable_autopilot(simulator.car)
        self._above = None
        if self.config.birdseye:
            self._above = Birdseye(self.config.above, self.config.image_size, simulator.graph, route)
        try:
            return self._first_frame(route, _FIRST_PICTURE_SECONDS)
        except SimulatorLost:
            # The first pictures of a camera may be missing: one more frame, but only here.
            return self._first_frame(route, self.config.timeout_seconds)

    def _first_frame(self, route: Route, timeout: float) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        self._frame = self._simulator.tick()
        self._simulator.collisions()
        episode = RouteEpisode(self.config, route, self._simulator.state())
        self._decisions = 0
        self._target: tuple[float | None, float] | None = None
        observation = self._observe(episode, timeout)
        self._episode = episode
        return observation, self._info(episode)

    def step(self, action: Any) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """One decision: see the class.

        Raises:
            ValueError: an action outside the action space, or `hands_off` without the autopilot.
            ResetNeeded: the episode is over, or none has begun.
        """
        episode = self._episode
        if episode is None or episode.reason is not None:
            raise ResetNeeded("CarlaEnv.step: no episode is under way; call reset first")
        control = self._actions.control(action)
        if control is None and not self._autopilot:
            raise ValueError("CARLA action: `hands_off`, but no autopilot drives this episode")
        terms: dict[str, float] = {}
        simulator, first = self._simulator, episode.frames
        if self._targets:
            self._set_target(episode, self._targets[min(self._decisions, len(self._targets) - 1)])
        self._decisions += 1
        for _ in range(self.config.action_repeat):
            if self._autopilot and episode.frames % _PATH_EVERY == 0:
                simulator.traffic.set_path(simulator.car, episode.route, episode.place.s)
            if control is not None:
                simulator.apply(control)
            self._frame = simulator.tick()
            collisions = simulator.collisions()
            car = simulator.state()
            light = simulator.light()
            gap = gap_to_car_ahead(car, simulator.others())
            for name, value in episode.advance(car, light, gap, collisions).items():
                terms[name] = terms.get(name, 0.0) + value
            if episode.reason is not None:
                break
        info = self._info(episode)
        info["frames"], info["terms"] = episode.frames - first, terms
        info["applied_action"] = self._actions.action(episode.car.control)
        if self._autopilot:
            info["autopilot_action"] = info["applied_action"]
        if episode.reason is not None:
            info["reason"] = episode.reason
        observation = self._observe(episode, self.config.timeout_seconds)
        return observation, sum(terms.values()), episode.terminated, episode.truncated, info

    def close(self) -> None:
        """Destroy our actors and leave synchronous mode; a second call does nothing."""
        self._finish()
        self._episode = None

    def _set_target(self, episode: RouteEpisode, target: AutopilotTarget) -> None:
        """Send the autopilot its present target if it has changed."""
        width = episode.half_width
        offset = -episode.place.lateral / width
        wanted = target.target_speed(episode.car.speed, offset), target.target_offset(offset) * width
        if wanted != self._target:
            self._simulator.traffic.set_target(self._simulator.car, *wanted)
            self._target = wanted

    def _spawn(self, start: Any, goal: Any) -> Route:
        """Plan a route and spawn the cars; a random route is drawn again if its start is blocked."""
        simulator = self._simulator
        graph, places = simulator.graph, simulator.spawn_points()
        for _ in range(_TRIES):
            if start is not None and goal is not None:
                route = graph.between(tuple(start), tuple(goal))
            else:
                route = graph.random(self.config.route.length, self.np_random, places)
            if simulator.spawn(route, self.np_random):
                return route
        x, y, _ = route.points[0]
        # By cars of another client, for ours are destroyed; a new connection removes them, too.
        raise SimulatorLost(f"every start tried is blocked, the last one at ({x:.1f}, {y:.1f})")

    def _observe(self, episode: RouteEpisode, timeout: float) -> dict[str, NDArray[Any]]:
        """The observations that the config switches on, of the last frame."""
        config, car, simulator = self.config, episode.car, self._simulator
        seen: dict[str, NDArray[Any]] = {
            name: camera.picture(self._frame, timeout) for name, camera in simulator.cameras.items()
        }
        if self._above is not None:
            boxes = [
                *light_bar(episode.route, episode.lights.stop_line),
                *(Box(*other, CAR) for other in simulator.others()),
            ]
            boxes.append(Box(car.x, car.y, car.yaw, car.half_length, car.half_width, EGO))
            seen["birdseye"] = self._above.draw(car.x, car.y, car.yaw, boxes)
        if config.state:
            gap = episode.lights.gap
            seen["state"] = carla_state_vector(config.route, car, episode.place, episode.tracker, gap)
        return seen

    def _info(self, episode: RouteEpisode) -> dict[str, Any]:
        return {**episode.info(), "town": self._simulator.town, "weather": self._weather}


@dataclass(frozen=True)
class ClientSpec:
    """What a client process needs to connect; it is sent to that process, so everything in it pickles."""

    config: CarlaConfig
    address: Address
    seed: int
    start_seconds: float
    """How long the server may take to start answering [s]."""
    restore: bool
    """Whether the server outlives the client, which then always restores its settings."""


OpenEnv = Callable[[ClientSpec], gymnasium.Env[Any, Any]]
"""Opens an environment in the server of a `ClientSpec`. Sent to a client process, so it must pickle."""


def open_carla(client: ClientSpec) -> CarlaEnv:
    """The environment in a server, once that answers and is of the client's version.

    Raises:
        SimulatorLost: the server does not answer in time.
        CarlaSetupError: the server is of another version, or CARLA's client is not installed.
    """
    try:
        import carla
    except ModuleNotFoundError as error:
        raise CarlaSetupError(
            "CARLA's client is not installed: pip install 'dreamdrive[carla]' (Linux, Python below 3.13)"
        ) from error
    address, deadline = client.address, time.monotonic() + client.start_seconds
    absent = f"no CARLA server answers at {address} (waited {client.start_seconds:g} s)"
    while not is_listening(address.host, address.port):
        if time.monotonic() > deadline:
            raise SimulatorLost(absent)
        time.sleep(_POLL_SECONDS)
    while True:
        # A client that is made before its server answers may never connect.
        probe = carla.Client(address.host, address.port, 1)
        probe.set_timeout(2.0)
        try:
            # Before any other call: those crash if the server speaks the protocol of another version.
            check_version(probe.get_server_version(), probe.get_client_version(), address)
            break
        except RuntimeError as error:
            if time.monotonic() > deadline:
                raise SimulatorLost(absent) from error
    # A server answers before its world is loaded.
    probe.set_timeout(max(deadline - time.monotonic(), client.config.timeout_seconds))
    probe.get_world()
    return CarlaEnv(client.config, address.host, address.port, address.traffic_port, client.seed)


def _close(simulator: Simulator) -> None:
    # Of a lost one nothing is left to restore.
    with suppress(SimulatorLost):
        simulator.close()
