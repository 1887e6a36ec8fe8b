"""One episode along a route, frame by frame: reward, infractions and end. Independent of a simulator."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from envs.carla.config import CarlaConfig
from envs.carla.ends import Reason, StuckClock, end_reason
from envs.carla.infractions import LaneMarkings, RedLights
from envs.carla.manoeuvres import manoeuvre_at, manoeuvres
from envs.carla.progress import RoutePosition, RouteTracker
from envs.carla.reward import RewardInputs, reward_terms
from envs.carla.route import Route
from envs.carla.state import CarState


class RouteEpisode:
    """Reward, infractions and end of one episode along a route.

    Args:
        config: its reward and its ends.
        route: the route.
        car: state at the start.
    """

    def __init__(self, config: CarlaConfig, route: Route, car: CarState) -> None:
        self._config = config
        self.route = route
        self.tracker = RouteTracker(route)
        self.lights = RedLights(route)
        self._manoeuvres = manoeuvres(route)
        self.car = car
        self.place: RoutePosition = self.tracker.locate(car.x, car.y, car.yaw)
        self.frames = 0
        """Frames driven so far."""
        self.reason: Reason | None = None
        """Why the episode ended; None before its end."""
        self.infractions: Counter[str] = Counter()
        """Counts so far by kind: collision_vehicle, collision_walker, collision_static, red_light,
        lane_invasion, off_lane, stuck."""
        self._markings = LaneMarkings(route, car.half_width, car.half_length)
        self._clock = StuckClock(config.step_seconds)

    def advance(
        self, car: CarState, light: str | None, gap: float, collisions: Sequence[str]
    ) -> dict[str, float]:
        """Advance one frame; returns the terms of its reward.

        Args:
            car: state after the frame.
            light: state of the traffic light that the car is at, by CARLA's name; None without one.
            gap: to the next car ahead [m]; infinite without one.
            collisions: kinds of the new collisions (vehicle, walker, static).
        """
        before, car_before = self.place, self.car
        self.frames += 1
        self.car, self.place = car, self.tracker.locate(car.x, car.y, car.yaw)
        self.lights.update(self.place.s, light)
        crossings = self._markings.update(self.place)
        gap = min(gap, self.lights.gap - car.half_length)
        stood = self._clock.tick(car.speed, excused=self.lights.gap < math.inf)
        reason = end_reason(
            self._config.ends,
            collided=bool(collisions),
            ran_red=self.lights.ran_red,
            lateral=abs(self.place.lateral),
            stood_seconds=stood,
            left=self.route.length - self.place.s,
        )
        self.infractions.update(f"collision_{kind}" for kind in collisions)
        self.infractions.update({"red_light": int(self.lights.ran_red), "lane_invasion": crossings})
        if reason in ("off_lane", "stuck"):
            self.infractions[reason] += 1
        if reason is None and self.frames >= self._config.max_frames:
            reason = "time"
        self.reason = reason
        along, across = self._split_speed(car)
        motion = RewardInputs(
            gained=self.place.s - before.s,
            along=along,
            across=across,
            gap=gap,
            lateral=abs(self.place.lateral),
            heading=abs(self.place.heading),
            steer=car.control.steer,
            steer_before=car_before.control.steer,
            collisions=len(collisions),
            crossings=crossings,
            ran_red=self.lights.ran_red,
            reached=reason == "goal",
            failed=reason not in (None, "goal", "time"),
        )
        return reward_terms(self._config.reward, motion)

    @property
    def terminated(self) -> bool:
        """Whether the episode ended for a reason other than time."""
        return self.reason not in (None, "time")

    @property
    def truncated(self) -> bool:
        """Whether the time limit ended the episode."""
        return self.reason == "time"

    @property
    def half_width(self) -> float:
        """Half the width of the route's lane at the car [m]."""
        return float(self.route.width[self.place.index]) / 2

    def info(self) -> dict[str, Any]:
        """State of the episode in this frame, see `envs.carla.env.CarlaEnv`."""
        car, place = self.car, self.place
        return {
            "frame": self.frames,
            "position": (car.x, car.y, car.z, math.degrees(car.yaw)),
            "speed": car.speed,
            "route_completion": 1.0 if self.reason == "goal" else place.completion,
            "route_length": self.route.length,
            "in_lane": abs(place.lateral) <= self.half_width,
            "lane_offset": -place.lateral,
            "half_width": self.half_width,
            "manoeuvre": manoeuvre_at(self._manoeuvres, place.s),
            "route_manoeuvres": [one.word for one in self._manoeuvres],
            "infractions": {kind: count for kind, count in self.infractions.items() if count},
        }

    def _split_speed(self, car: CarState) -> tuple[float, float]:
        """Speed along the route, backwards negative, and absolute speed across it [m/s]."""
        yaw = float(self.route.yaw[self.place.index])
        cos, sin = math.cos(yaw), math.sin(yaw)
        return car.vx * cos + car.vy * sin, abs(car.vy * cos - car.vx * sin)
