"""The table of an evaluation in CARLA."""

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from train.drive.carla_score import KINDS, PENALTIES, Summary


def show(driver: str, total: Summary, by_town: Mapping[str, Summary]) -> None:
    """Print a column for each town, and one for all routes where there are several towns."""
    results = dict(by_town) if len(by_town) == 1 else {**by_town, "all": total}
    table = Table(title=f"{driver}: means over routes")
    table.add_column("driving score = completion x penalties")
    for name in results:
        table.add_column(name, justify="right")
    columns = [rows(result) for result in results.values()]
    for name in columns[0]:
        table.add_row(escape(name), *(column[name] for column in columns))
    Console().print(table)


def rows(result: Summary) -> dict[str, str]:
    """What the table says of one town."""
    told = {
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
        told[f"{kind.replace('_', ' ')}{factor} [1/km]"] = f"{rate:.2f}"
    told["routes ended by"] = ", ".join(f"{reason} {count}" for reason, count in sorted(result.ended.items()))
    return told
