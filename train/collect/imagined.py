"""The job that imagines variations of recorded episodes as training data."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from train.data.episodes import read_episode, write_episode
from train.drive.agents import load_world_model
from train.language.hindsight import CAR_RACING_SPEEDS, CARLA_SPEEDS
from train.run.checkpoint import write_json_aside
from train.run.errors import DreamdriveError, explain_os_errors
from train.run.progress import Progress
from train.vla.imagined import ImaginedConfig, ImaginedReport, imagine_data
from train.vla.loading import check_policy_features
from train.vla.policy import load_policy
from train.vla.probes import fit_dream_probes_on, load_dream_probes

_FIT_EPISODES = 64


def collect_imagined(
    model: Path,
    paths: Sequence[Path],
    output: Path,
    policy: Path | None = None,
    gauges: Path | None = None,
    count: int | None = None,
    carla: bool = False,
    config: ImaginedConfig | None = None,
    seed: int = 0,
) -> ImaginedReport:
    """Imagine variations of recorded episodes.

    Beside the episodes the output gets the probes, `gauges.safetensors` and `gauges.json`, and `report.json`:
    how much was kept, and the reasons for the rest.

    Args:
        model: run of the world model.
        paths: files of demonstrations, at least one.
        output: folder for the imagined episodes; it must hold none yet.
        policy: run of a policy that acts in a share of the dreams.
        gauges: folder with probes of the world model; None fits them on the episodes.
        count: demonstrations to use, drawn by the seed; None uses all.
        carla: whether the episodes are CARLA's, which has other classes of speed.
        config: how many, how long, how noisy, and how probes are fitted.
        seed: of everything random.

    Raises:
        DreamdriveError: no such run, it does not fit the episodes, or the output holds episodes; the policy
            sees by another world model's features.
    """
    config = config or ImaginedConfig()
    if output.is_dir() and any(output.glob("*.npz")):
        raise DreamdriveError(f"{output}: already holds episodes; name another folder")
    found = load_world_model(model)
    if "image" not in found.shapes:
        raise DreamdriveError(
            f"{model}: its world model observes {', '.join(sorted(found.shapes))}: expected pictures, 'image'"
        )
    driver = load_policy(policy) if policy is not None else None
    if policy is not None:
        check_policy_features(policy, found.world_model, model)
    if count is not None:
        order = np.random.default_rng([seed, 60]).permutation(len(paths))
        paths = [paths[i] for i in sorted(order[:count])]
    with explain_os_errors("cannot make the folder", output):
        output.mkdir(parents=True, exist_ok=True)
    names = sorted(found.shapes)
    with Progress(f"imagining {output}", len(paths), "drives") as progress:
        if gauges is None:
            progress.say(f"fitting probes on {min(len(paths), _FIT_EPISODES)} drives")
            read = fit_dream_probes_on(found.world_model, names, paths[:_FIT_EPISODES], config.fit, seed)
        else:
            read = load_dream_probes(gauges, found.world_model)
        read.save(output)
        report = ImaginedReport(probe=dict(read.scores))
        for number, path in enumerate(paths):
            made, one = imagine_data(
                found.world_model,
                read,
                [read_episode(path)],
                CARLA_SPEEDS if carla else CAR_RACING_SPEEDS,
                config,
                driver,
                names,
                # Each drive has chance of its own.
                int(np.random.SeedSequence([seed, number]).generate_state(1)[0]),
            )
            report = report + one
            for index, episode in enumerate(made):
                write_episode(output / f"imagined_{number:05d}_{index:03d}.npz", episode)
            progress.update(number + 1, {"kept": report.kept, "share": report.kept_share})
        progress.say(report.summary())
    write_json_aside(output / "report.json", asdict(report))
    return report
