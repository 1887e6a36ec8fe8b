"""The driving score of the CARLA leaderboard: of a route, its means over routes, and their table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

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
"""The infractions that the table lists, penalised or not."""


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


def mean_scores(routes: Sequence[RouteScore]) -> Summary:
    """The means over `routes`, each counting the same.

    Raises:
        ValueError: there are none.
    """
    if not routes:
        raise ValueError("no routes: expected at least one")

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


def mean_scores_by_town(routes: Sequence[RouteScore], towns: Sequence[str]) -> dict[str, Summary]:
    """As `mean_scores`, of each of the towns that any of the routes lies in."""
    own = {town: [route for route in routes if route.town == town] for town in towns}
    return {town: mean_scores(found) for town, found in own.items() if found}


def print_route_scores(driver: str, total: Summary, by_town: Mapping[str, Summary]) -> None:
    """Print a column for each town, and one for all routes where there are several towns."""
    results = dict(by_town) if len(by_town) == 1 else {**by_town, "all": total}
    table = Table(title=f"{driver}: means over routes")
    table.add_column("driving score = completion x penalties")
    for name in results:
        table.add_column(name, justify="right")
    columns = [score_rows(result) for result in results.values()]
    for name in columns[0]:
        table.add_row(escape(name), *(column[name] for column in columns))
    Console().print(table)


def score_rows(result: Summary) -> dict[str, str]:
    """The rows of one town's column, name -> text."""
    cells = {
        "routes": str(result.routes),
        "driving score [%]": f"{100 * result.driving_score:.1f} ± {100 * result.driving_score_std:.1f}",
        "route completion [%]": f"{100 * result.route_completion:.1f}",
        "product of penalties": f"{result.penalty:.3f}",
        "goal, without a penalty [%]": f"{100 * result.success:.0f}",
        "driven [km]": f"{result.kilometres:.2f}",
    }
    for kind in KINDS:
        factor = f" (x {PENALTIES[kind]:.2f})" if kind in PENALTIES else ""
        rate = result.infractions_per_kilometre.get(kind, 0.0)
        cells[f"{kind.replace('_', ' ')}{factor} [1/km]"] = f"{rate:.2f}"
    cells["routes ended by"] = ", ".join(
        f"{reason} {count}" for reason, count in sorted(result.ended.items())
    )
    return cells
