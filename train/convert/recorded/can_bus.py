"""nuScenes's CAN bus expansion: `can_bus/scene-0001_pose.json`, messages at 50 Hz, and its siblings.

`pose` gives velocity, acceleration and rotation in the car's frame (x forward, y left, z up);
`steeranglefeedback` the angle of the steering wheel [rad], positive to the RIGHT. 21 scenes have no messages.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from train.convert.recorded.motion import Floats, Motion
from train.convert.recorded.tables import NUMBER, numbers_of, table_rows
from train.run.errors import DreamdriveError

_UNKNOWN = 0.5  # seconds without messages that may be bridged: they come every 0.02


def can_motion(folder: Path, scene: str, stamps: Floats, positions: Floats) -> Motion | None:
    """The measured motion of a scene at the moments `stamps` (R,) [s since 1970].

    Args:
        folder: `can_bus`.
        scene: its name.
        stamps: when pictures were taken.
        positions: (R, 2 or 3), of the ego poses.

    Returns:
        None where the scene has no messages. `times` count from the first of the `stamps`.

    Raises:
        DreamdriveError: messages are broken, or leave a part of the scene out.
    """
    path = folder / f"{scene}_pose.json"
    if not path.is_file():
        return None
    at: list[float] = []
    values: list[tuple[float, ...]] = []
    fields = {"utime": int, "vel": list, "accel": list, "rotation_rate": list}
    for number, row in enumerate(table_rows(path, fields)):
        where = f"{path}: row {number}"
        velocity, acceleration = numbers_of(where, row, "vel", 3), numbers_of(where, row, "accel", 3)
        at.append(row["utime"] / 1e6)
        values.append((velocity[0], numbers_of(where, row, "rotation_rate", 3)[2], acceleration[0]))
    speeds, yaw_rates, accelerations = _between_messages(path, stamps, at, values)
    return Motion(stamps - stamps[0], speeds, yaw_rates, accelerations, positions)


def steering_wheel(folder: Path, scene: str, stamps: Floats) -> Floats | None:
    """Angle of the steering wheel at `stamps`, (R,) [rad], positive to the right; None where not recorded.

    Raises:
        DreamdriveError: as `can_motion`.
    """
    path = folder / f"{scene}_steeranglefeedback.json"
    if not path.is_file():
        return None
    messages = table_rows(path, {"utime": int, "value": NUMBER})
    rows = [(row["utime"] / 1e6, float(row["value"])) for row in messages]
    return _between_messages(path, stamps, [row[0] for row in rows], [row[1:] for row in rows])[0]


def _between_messages(
    path: Path, stamps: Floats, at: Sequence[float], rows: Sequence[tuple[float, ...]]
) -> list[Floats]:
    """Each column of `rows`, known at the times `at`, at `stamps`, by linear interpolation."""
    if not rows:
        raise DreamdriveError(f"{path}: no messages, expected many a second")
    known, values = np.array(at), np.array(rows)
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise DreamdriveError(f"{path}: NaN or infinite in row {row}, expected numbers")
    distance = np.abs(stamps[:, None] - known[None]).min(axis=1)
    if distance.max() > _UNKNOWN:
        row = int(distance.argmax())
        raise DreamdriveError(
            f"{path}: no message within {distance[row]:.1f} s of picture {row}, "
            f"expected one within {_UNKNOWN} s"
        )
    order = np.argsort(known, kind="stable")
    return [np.interp(stamps, known[order], column[order]) for column in values.T]
