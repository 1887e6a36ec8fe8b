"""How many of a world model's futures keep the road in CarRacing, read from the pictures themselves."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from envs.car_racing.observation import ON_GRASS, ON_ROAD, grass_share_seen
from train.data.episodes import Episode
from train.data.hdf5 import open_episodes
from train.drive.agents import load_world_model
from train.drive.environments import require_car_racing
from train.drive.open_loop import dream_futures
from train.look.generate import Acting, DreamSampling, policy_of, usual_context
from train.run.checkpoint import write_json_aside
from train.run.errors import DreamdriveError
from train.run.progress import Progress
from train.tokenizer.token_folder import is_token_folder

_SECONDS = 5.0
_ZOOMED = 13  # rows after which the camera has zoomed in, and the car is at its place


@dataclass
class RoadKeeping:
    """What became of the futures.

    Attributes:
        starts: recorded moments on the road.
        futures: dreams of each.
        seconds: how long each must keep the road.
        kept: share of the dreams that did.
        kept_recorded: share of the recorded drives that did, read from their pictures in the same way.
    """

    starts: int
    futures: int
    seconds: float
    kept: float
    kept_recorded: float


def keeps_road(pictures: NDArray[np.uint8], crop_hud: bool) -> NDArray[np.bool_]:
    """Whether the car is on the road in all pictures of each drive (N, H, 3, S, S); (N,)."""
    share = grass_share_seen(pictures.reshape(-1, *pictures.shape[2:]), crop_hud)
    return np.asarray(np.all(share.reshape(pictures.shape[:2]) <= ON_GRASS, axis=1))


def measure_road_keeping(
    run: Path,
    episodes: Path,
    starts: int = 20,
    futures: int = 4,
    frames: int | None = None,
    context: int | None = None,
    acting: Acting = "policy",
    sampling: DreamSampling | None = None,
    seed: int = 0,
    json_path: Path | None = None,
) -> RoadKeeping:
    """Dream futures of recorded moments on the road, and count those that keep it.

    Args:
        run: a run whose agent drives in CarRacing.
        episodes: a folder or an HDF5 file of recorded drives, of pictures.
        starts: moments, drawn over the episodes.
        futures: dreams of each.
        frames: rows that are dreamt; None is 5 seconds.
        context: rows seen before; None as in `generate`.
        acting: which actions lead on.
        sampling: how tokens are drawn.
        seed: of the moments and of the dreams.
        json_path: where to write the result, too.

    Raises:
        DreamdriveError: no such run or episodes; they do not fit; too few moments.
    """
    loaded = load_world_model(run)
    if loaded.trained is None:
        raise DreamdriveError(f"{run}: has no agent, expected a run of an agent in car_racing")
    env = require_car_racing(loaded.trained.config.env, f"{run}")
    (sampling or DreamSampling()).apply(loaded.world_model, str(run))
    policy = policy_of(loaded, str(run)) if acting == "policy" else None
    if is_token_folder(episodes):
        raise DreamdriveError(f"{episodes}: tokens, expected recorded pictures to begin at")
    store = open_episodes(episodes, grouped=True)
    rows = usual_context(loaded.world_model) if context is None else context
    horizon = round(_SECONDS * loaded.fps) if frames is None else frames
    seconds = horizon / loaded.fps
    rng = np.random.default_rng([seed, 40])
    torch.manual_seed(seed)
    kept: list[bool] = []
    recorded: list[bool] = []
    with Progress(f"dreaming {run}", starts, "starts") as shown:
        for number in rng.permutation(len(store)).tolist():
            if len(recorded) == starts:
                break
            found = _moment(store.read(number), rows, horizon, env.crop_hud, rng)
            if found is None:
                continue
            try:
                made = dream_futures(loaded.world_model, found, rows, horizon, futures, policy)
            except DreamdriveError as error:
                raise DreamdriveError(f"{store.where(number)}: {error}") from error
            kept += keeps_road(made.dreamt, env.crop_hud).tolist()
            recorded += keeps_road(made.truth[None, rows:], env.crop_hud).tolist()
            shown.update(len(recorded), {"keep the road": float(np.mean(kept))})
    if not recorded:
        raise DreamdriveError(
            f"{episodes}: no moment on the road with {rows} pictures before and {horizon} after it"
        )
    result = RoadKeeping(len(recorded), futures, seconds, float(np.mean(kept)), float(np.mean(recorded)))
    print(
        f"{result.kept:.0%} of {len(kept)} futures of {result.starts} moments keep the road for "
        f"{seconds:.3g} s; {result.kept_recorded:.0%} of the recorded drives do"
    )
    if json_path is not None:
        write_json_aside(json_path, asdict(result))
    return result


def _moment(
    episode: Episode, context: int, horizon: int, crop_hud: bool, rng: np.random.Generator
) -> Episode | None:
    """A stretch of `context` and `horizon` rows whose first part ends on the road; None if there is none."""
    last = len(episode.rewards) - context - horizon
    if last < 0:
        return None
    share = grass_share_seen(episode.observations["image"], crop_hud)
    firsts = np.arange(max(0, _ZOOMED - context), last + 1)
    firsts = firsts[share[firsts + context - 1] < ON_ROAD]
    if not len(firsts):
        return None
    first = int(rng.choice(firsts))
    cut = slice(first, first + context + horizon)
    is_first = np.zeros(context + horizon, bool)
    is_first[0] = True
    observations = {name: values[cut] for name, values in episode.observations.items()}
    return Episode(
        observations, episode.actions[cut], episode.rewards[cut], is_first, episode.is_terminal[cut]
    )
