"""Show an open-loop dream of a run's world model beside what happened: `dreamdrive imagine`."""

from pathlib import Path

import torch

from train.drive.agents import load_world_model
from train.drive.open_loop import draw_dream, fit_pictures, open_loop
from train.look.record import record_episode
from train.pictures.filmstrip import frame_psnr
from train.run.errors import DreamdriveError
from train.tokenizer.token_folder import read_for_model


def imagine_run(
    run: Path, episode: Path | None, context: int = 5, horizon: int = 50, output: Path | None = None
) -> list[Path]:
    """Dream from an episode file, or from an episode that the agent drives now, and draw it.

    Args:
        run: folder of the run.
        episode: an .npz file; None lets the agent drive.
        context: rows that the model sees.
        horizon: rows that it dreams.
        output: folder for the pictures; None is `pictures` in the run's folder.

    Raises:
        DreamdriveError: no such run or episode; see `open_loop`, too.
    """
    loaded = load_world_model(run)
    torch.manual_seed(loaded.seed)
    if episode is not None:
        recorded = fit_pictures(read_for_model(episode, loaded.world_model), loaded.shapes)
    elif loaded.trained is not None:
        recorded = record_episode(loaded.trained, seed=1_000_000, decisions=context + horizon)
    else:
        raise DreamdriveError(f"{run}: holds a world model that does not drive: expected --episode FILE")
    truth, model = open_loop(loaded.world_model, recorded, context, horizon)
    paths = draw_dream(output or loaded.run.pictures, truth, model, context, loaded.fps)
    psnr = frame_psnr(truth, model)
    print(
        f"seen {psnr[:context].mean():.1f} dB, dreamt {psnr[context:].mean():.1f} dB PSNR "
        f"over {horizon} steps"
    )
    for path in paths:
        print(path)
    return paths
