"""The driving score of the CARLA leaderboard, from what became of each route."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from envs.carla.servers.routes import RouteResult

PENALTIES: dict[str, float] = {
    "collision_walker": 0.50,
    "collision_vehicle": 0.60,
    "collision_static": 0.65,
    "red_light": 0.70,
}
"""What each infraction multiplies the score by: those of the CARLA leaderboard (leaderboard.carla.org, on the
driving score), whose 0.80 for a stop sign has no use here, where there are none."""
KINDS = ("collision_walker", "collision_vehicle", "collision_static", "red_light", "lane_invasion")
"""The infractions that tables tell of, penalised or not."""


@dataclass(frozen=True)
class RouteScore:
    """One route's result, as JSON holds it; shares in [0, 1]."""

    town: str
    seed: int
    weather: str
    length: float
    """Of the route [m]."""
    metres: float
    """Driven along it [m]."""
    route_completion: float
    """Driven, without what was driven out of the lane."""
    out_of_lane: float
    """Share of what was driven that was out of the lane."""
    penalty: float
    driving_score: float
    infractions: dict[str, int]
    ended: str
    frames: int
    reward: float


@dataclass(frozen=True)
class Summary:
    """The means over routes; shares in [0, 1]."""

    routes: int
    driving_score: float
    driving_score_std: float
    route_completion: float
    penalty: float
    success: float
    """Share of the routes that were driven to the goal without a penalty."""
    kilometres: float
    infractions: dict[str, int]
    infractions_per_kilometre: dict[str, float]
    ended: dict[str, int]
    """Routes by the reason of their end."""


def penalty(infractions: Mapping[str, int]) -> float:
    """The product of the penalties of all infractions, in (0, 1]; 1 without any."""
    return float(np.prod([PENALTIES.get(kind, 1.0) ** count for kind, count in infractions.items()]))


def score_route(drive: RouteResult) -> RouteScore:
    """Driving score = completion x penalty, where the completion leaves out what was driven off the lane."""
    # Sums of floats: what is left over is no distance.
    in_lane = float(np.clip(drive.in_lane, 0.0, drive.completion))
    factor = penalty(drive.infractions)
    return RouteScore(
        town=drive.task.town,
        seed=drive.task.seed,
        weather=drive.weather,
        length=drive.length,
        metres=drive.metres,
        route_completion=in_lane,
        out_of_lane=1.0 - in_lane / drive.completion if drive.completion > 0 else 0.0,
        penalty=factor,
        driving_score=in_lane * factor,
        infractions=drive.infractions,
        ended=drive.reason,
        frames=drive.frames,
        reward=drive.reward,
    )


def summarise(routes: Sequence[RouteScore]) -> Summary:
    """The means over `routes`, each counting the same.

    Raises:
        ValueError: there are none.
    """
    if not routes:
        raise ValueError("no routes to summarise, expected at least one")

    def mean(name: str) -> float:
        return float(np.mean([getattr(route, name) for route in routes]))

    counts: Counter[str] = Counter()
    for route in routes:
        counts.update(route.infractions)
    kilometres = sum(route.metres for route in routes) / 1000
    return Summary(
        routes=len(routes),
        driving_score=mean("driving_score"),
        driving_score_std=float(np.std([route.driving_score for route in routes])),
        route_completion=mean("route_completion"),
        penalty=mean("penalty"),
        success=float(np.mean([route.ended == "goal" and route.penalty == 1.0 for route in routes])),
        kilometres=kilometres,
        infractions=dict(counts),
        infractions_per_kilometre={kind: count / kilometres for kind, count in counts.items() if kilometres},
        ended=dict(Counter(route.ended for route in routes)),
    )
