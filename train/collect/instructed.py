"""The job that records CarRacing driven by a policy as it is told."""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from envs import TRAINING_SEEDS
from envs.car_racing.env import CarRacingConfig
from envs.car_racing.observation import CarRacingObservation
from train.collect.recorder import Seat
from train.data.episode_store import EpisodeFolder
from train.data.hdf5 import is_hdf5
from train.drive.environments import require_car_racing
from train.run.errors import DreamdriveError
from train.run.options import build
from train.run.progress import Progress
from train.vla.compatibility import check_car_racing
from train.vla.instructed_driver import Ride, Told

_SEATS = 8  # simulators at the same time


def collect_told(
    told: Told,
    name: str,
    episodes: int,
    output: Path,
    seed: int = 0,
    overrides: Mapping[str, str] | None = None,
) -> int:
    """Drive until there are `episodes` episodes in the folder `output`; run again, it goes on.

    The files are `train.data.episodes`'s, with the extras of `train.collect.recorder.Seat.episode`, from
    which hindsight tells what each row obeyed, and `instruction`, what the policy was told: it may have done
    something else.

    Args:
        told: the policy, and what it is told.
        name: what the folder remembers the policy by.
        episodes: how many there shall be.
        output: the folder; made if missing.
        seed: of everything: episode N is drawn from the seed and N.
        overrides: options of `CarRacingConfig`, as text.

    Returns:
        How many were driven now.

    Raises:
        DreamdriveError: the policy learnt elsewhere, or sees something else; options that do not fit; the
            folder holds other episodes; or the disk refuses.
    """
    if is_hdf5(output):
        raise DreamdriveError(
            f"{output}: expected a folder: what a policy drives as told is not kept in HDF5"
        )
    learnt = None if told.learnt is None else require_car_racing(told.learnt, name)
    env = build(CarRacingConfig, None, overrides or {}, learnt.model_dump() if learnt else None)
    check_car_racing(told.own, env, name)
    if learnt is not None and env.action_repeat != learnt.action_repeat:
        raise DreamdriveError(
            f"--env.action_repeat {env.action_repeat}: expected {learnt.action_repeat}, as {name} learnt"
        )
    if env.max_frames < env.action_repeat:
        raise DreamdriveError(f"--env.max_frames {env.max_frames}: expected at least {env.action_repeat}")
    made: dict[str, Any] = {"policy": name, "seed": seed, "instructions": list(told.instructions)}
    made["env"] = env.model_dump(mode="json", include={"image_size", "crop_hud", "instruments", "action"})
    made["env"] |= {"action_repeat": env.action_repeat, "max_frames": env.max_frames}
    with EpisodeFolder(output, "a", made=made) as files:
        wanted = len(files.missing(episodes))
        _drive(told, env, files, episodes, seed)
    return wanted


def _drive(told: Told, env: CarRacingConfig, files: EpisodeFolder, episodes: int, seed: int) -> None:
    """Every simulator takes the next episode when it has ended one."""
    queue = deque(files.missing(episodes))
    view = CarRacingObservation(env.image_size, env.crop_hud, env.instruments)
    decisions = env.max_frames // env.action_repeat
    seats = [Seat(decisions, env, view) for _ in range(min(_SEATS, len(queue)))]
    done = len(files)
    try:
        with Progress(f"collecting {files.path}", episodes, "episodes", done=done) as progress:
            progress.update(done)
            driving = [(seat, *_begin(seat, told, queue.popleft(), seed)) for seat in seats]
            while driving:
                going = []
                for seat, number, ride in driving:
                    seat.drive(ride.act(seat.observation))
                    if not seat.over:
                        going.append((seat, number, ride))
                        continue
                    files.write(number, seat.episode({"instruction": np.array(ride.instruction)}))
                    progress.update(len(files))
                    if queue:
                        going.append((seat, *_begin(seat, told, queue.popleft(), seed)))
                driving = going
    finally:
        for seat in seats:
            seat.close()


def _begin(seat: Seat, told: Told, number: int, seed: int) -> tuple[int, Ride]:
    """Begin the episode of that number: the number, and who drives it."""
    drawn = np.random.SeedSequence([seed, number]).generate_state(2)
    seat.begin(int(drawn[0]) % TRAINING_SEEDS)
    return number, told.begin(int(drawn[1]))
