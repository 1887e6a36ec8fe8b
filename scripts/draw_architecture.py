"""Draw docs/images/architecture.png: the folders of the code, in layers, from their own imports.

A folder stands above all that it imports. An arrow that a chain of others implies is left out.
"""

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("agent", "envs", "train")
COLOURS = {"agent": "#d9ead3", "envs": "#d0e0f0", "train": "#fbe8c8"}
WIDTH, HEIGHT, GAP = 2.15, 0.62, 1.25


def modules() -> dict[str, str]:
    """Code of every module of the packages, by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            words = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(words[:-1] if words[-1] == "__init__" else words)
            found[name] = path.read_text(encoding="utf-8")
    return found


def imports(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Module -> modules among `sources` that it imports, in functions too; absolute imports only."""
    arrows: dict[str, set[str]] = {name: set() for name in sources}
    for name, code in sources.items():
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import):
                arrows[name] |= {alias.name for alias in node.names} & sources.keys()
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0 and node.module, f"{name}:{node.lineno}: a relative import"
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    taken = full if full in sources else node.module
                    arrows[name] |= {taken} & sources.keys()
        arrows[name].discard(name)
    return arrows


def folder(name: str, packages: set[str]) -> str:
    """The folder that a module belongs to.

    A file beside a package's folders stands for itself, what is below a folder of `train` for that folder.
    """
    if name.startswith("train."):
        return ".".join(name.split(".")[:2])
    return name if name in packages or name.count(".") == 1 else name.rpartition(".")[0]


def by_folder(arrows: Mapping[str, set[str]], sources: Mapping[str, str]) -> dict[str, set[str]]:
    """The same arrows between folders (see `folder`)."""
    packages = {name for name in sources if any(other.startswith(name + ".") for other in sources)}
    between: dict[str, set[str]] = defaultdict(set)
    for name, others in arrows.items():
        own = folder(name, packages)
        between[own] |= {folder(other, packages) for other in others} - {own}
    return dict(between)


def reachable(node: str, arrows: Mapping[str, set[str]]) -> set[str]:
    """All that `node` imports, directly or not."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        for other in arrows.get(waiting.pop(), set()) - found:
            found.add(other)
            waiting.append(other)
    return found


def direct(arrows: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that no chain of others implies (transitive reduction of a graph without circles)."""
    found = {}
    for node, others in arrows.items():
        implied: set[str] = set().union(*(reachable(via, arrows) for via in others))
        found[node] = others - implied
    return found


def floors(arrows: Mapping[str, set[str]]) -> dict[str, int]:
    """Height of each node: 0 where it imports nothing, else one more than the highest that it imports."""
    found: dict[str, int] = {}

    def height(node: str) -> int:
        if node not in found:
            found[node] = max((height(other) + 1 for other in arrows.get(node, ())), default=0)
        return found[node]

    for node in arrows:
        height(node)
    return found


def draw(path: Path) -> None:
    """Write the picture to `path` (PNG)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import FancyBboxPatch

    sources = modules()
    packages = {name for name in sources if any(other.startswith(name + ".") for other in sources)}
    found = imports(sources)
    # A program of its own by its path: it starts the command line above it.
    found["train.world_model.train_world_model"].discard("train.cli")
    arrows = {
        node: {other for other in others if other not in PACKAGES}
        for node, others in by_folder(found, sources).items()
        if node not in PACKAGES
    }
    lines: dict[str, int] = defaultdict(int)
    files: dict[str, int] = defaultdict(int)
    for name, code in sources.items():
        lines[folder(name, packages)] += len(code.splitlines())
        files[folder(name, packages)] += 1
    level = floors(arrows)
    rows: dict[int, list[str]] = defaultdict(list)
    for node in sorted(arrows):
        rows[level[node]].append(node)
    widest = max(len(row) for row in rows.values())
    place = {
        node: ((k - (len(row) - 1) / 2) * (WIDTH + 0.25) + (0.35 if number % 2 else 0.0), number * GAP)
        for number, row in rows.items()
        for k, node in enumerate(row)
    }
    figure, axes = pyplot.subplots(figsize=(1.1 * widest * (WIDTH + 0.25) / 1.5, len(rows) * GAP * 0.75))
    for node, others in direct(arrows).items():
        for other in others:
            (x, y), (to_x, to_y) = place[node], place[other]
            axes.annotate(
                "",
                xy=(to_x, to_y + HEIGHT / 2),
                xytext=(x, y - HEIGHT / 2),
                arrowprops={"arrowstyle": "-|>", "color": "#999999", "linewidth": 0.8},
                zorder=1,
            )
    for node, (x, y) in place.items():
        corner = (x - WIDTH / 2, y - HEIGHT / 2)
        colour = COLOURS[node.split(".")[0]]
        box = FancyBboxPatch(corner, WIDTH, HEIGHT, "round,pad=0.03", facecolor=colour, edgecolor="#555555")
        box.set_zorder(2)
        axes.add_patch(box)
        axes.text(x, y + 0.1, node.replace(".", "/"), ha="center", va="center", fontsize=8, zorder=3)
        size = f"{lines[node]:,} lines" + (f", {files[node]} files" if files[node] > 1 else "")
        axes.text(x, y - 0.16, size, ha="center", va="center", fontsize=6.5, color="#444444", zorder=3)
    axes.set_xlim(min(x for x, _ in place.values()) - WIDTH, max(x for x, _ in place.values()) + WIDTH)
    axes.set_ylim(-HEIGHT, max(y for _, y in place.values()) + HEIGHT)
    axes.axis("off")
    figure.savefig(path, dpi=110, bbox_inches="tight")
    pyplot.close(figure)


def main() -> int:
    """The command line; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "architecture.png")
    output = parser.parse_args().output
    draw(output)
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
