"""The job that records CarRacing driven by a policy that takes instructions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs import TRAINING_SEEDS
from envs.car_racing.env import CarRacingConfig
from train.collect.recorder import EpisodeRecorder, record_missing
from train.data.episode_store import EpisodeFolder
from train.data.hdf5 import is_hdf5
from train.drive.drivers import act_alone
from train.drive.environments import require_car_racing
from train.run.errors import DreamdriveError
from train.run.options import build
from train.run.progress import Progress
from train.vla.checks import check_env
from train.vla.instructed_driver import InstructedPolicy

_SIMULATORS = 8  # at the same time


def collect_instructed(
    policy: InstructedPolicy,
    name: str,
    episodes: int,
    output: Path,
    seed: int = 0,
    overrides: Mapping[str, str] | None = None,
) -> int:
    """Drive until there are `episodes` episodes in the folder `output`; run again, it goes on.

    The files are `train.data.episodes`'s, with the extras of `EpisodeRecorder.episode`, from which hindsight
    tells what each row obeyed, and `instruction`, the policy's: it may have done something else.

    Args:
        policy: what drives, and its instructions.
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
    learnt = None if policy.learnt is None else require_car_racing(policy.learnt, name)
    env = build(CarRacingConfig, None, overrides or {}, learnt.model_dump() if learnt else None)
    check_env(policy.own, env, name)
    if learnt is not None and env.action_repeat != learnt.action_repeat:
        raise DreamdriveError(
            f"--env.action_repeat {env.action_repeat}: expected {learnt.action_repeat}, as {name} learnt"
        )
    if env.max_frames < env.action_repeat:
        raise DreamdriveError(f"--env.max_frames {env.max_frames}: expected at least {env.action_repeat}")
    made: dict[str, Any] = {"policy": name, "seed": seed, "instructions": list(policy.instructions)}
    made["env"] = env.model_dump(mode="json", include={"image_size", "crop_hud", "instruments", "action"})
    made["env"] |= {"action_repeat": env.action_repeat, "max_frames": env.max_frames}
    with EpisodeFolder(output, "a", made=made) as files:
        wanted = len(files.missing(episodes))
        simulators = [_InstructedRecorder(policy, env, seed) for _ in range(min(_SIMULATORS, wanted))]
        with Progress(f"collecting {files.path}", episodes, "episodes", done=len(files)) as progress:
            record_missing(files, episodes, simulators, _step, progress)
    return wanted


class _InstructedRecorder(EpisodeRecorder):
    """A simulator whose episodes an instructed policy drives; episode N is drawn from the seed and N."""

    def __init__(self, policy: InstructedPolicy, env: CarRacingConfig, seed: int) -> None:
        super().__init__(env.max_frames // env.action_repeat, env)
        self._policy, self._run_seed = policy, seed

    def begin(self, number: int) -> None:
        """See `EpisodeRecorder`."""
        drawn = np.random.SeedSequence([self._run_seed, number]).generate_state(2)
        self.start(number, int(drawn[0]) % TRAINING_SEEDS)
        self.driver = self._policy.driver(int(drawn[1]))

    def extras(self) -> dict[str, NDArray[Any]]:
        """What the policy was instructed to do."""
        return {"instruction": np.array(self.driver.instructions[0])}


def _step(simulators: Sequence[_InstructedRecorder]) -> None:
    for one in simulators:
        one.step(act_alone(one.driver, one.observation, len(one) == 0))
