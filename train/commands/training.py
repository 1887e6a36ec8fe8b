"""`dreamdrive train JOB`: train something from a config."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from train.commands.arguments import (
    Group,
    add_command,
    add_config,
    add_group,
    add_job,
    count,
    job_config,
    option,
    resumed_config,
)

if TYPE_CHECKING:
    from train.baselines.config import BaselineConfig
    from train.online.config import OnlineConfig
    from train.tokenizer.image_config import ImageTokenizerTrainConfig
    from train.tokenizer.token_codec_config import TokenCodecTrainConfig
    from train.vla.config import TeacherConfig, VLATrainConfig
    from train.world_model.config import WorldModelTrainConfig


def add_training(group: Group) -> None:
    """Add the jobs `train agent`, `world-model`, `tokenizer`, `token-codec`, `vla`, `vla-teacher` and
    `baseline`."""
    jobs = add_group(group, "train", "train a model or an agent", "jobs", "JOB")
    _add_world_model(jobs)
    _add_tokenizer(jobs)
    _add_token_codec(jobs)
    text = "train a vision-language-action policy on demonstrations to drive as a sentence says"
    parser = add_job(jobs, "vla", _vla, text, _vla_config, "[--config FILE] ")
    parser.epilog = "`dreamdrive eval RUN --instruction TEXT` measures how well the policy follows it."
    text = "fine-tune a policy of `train vla` in a world model, on imagined outcomes of its own chunks"
    usage = "--start RUN --world-model RUN --episodes '[DIR]' [--config FILE] "
    add_job(jobs, "vla-teacher", _teacher, text, _teacher_config, usage)
    _add_baseline(jobs)
    text = "train a world model and, in its dreams, an actor-critic, while driving"
    parser = add_job(jobs, "agent", _agent, text, _agent_config, "--config FILE ")
    parser.add_argument(
        "--size",
        choices=("1m", "12m", "25m", "50m", "100m", "200m"),
        help="sizes of DreamerV3's table, over those of the config (default: the config's own)",
    )


def _add_world_model(jobs: Group) -> None:
    text = "train a world model on recorded driving; for many GPUs start it by torchrun"
    parser = add_command(jobs, "world-model", _world_model, text, config=_world_model_config)
    parser.usage = (
        "dreamdrive train world-model [--config FILE] [--any-config-field VALUE ...] [--run RUN] [--resume]"
    )
    add_config(parser)
    option(parser, "--run", "RUN", "folder to write, another name of --output-dir", Path)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in --output-dir from its last checkpoint (default: begin a new run)",
    )
    parser.add_argument(
        "--auto-resume",
        action="store_true",
        help="continue the run in --output-dir if there is one, else begin it: for requeued jobs",
    )


def _add_tokenizer(jobs: Group) -> None:
    text = "train an image tokenizer on pictures, videos or episodes"
    usage = "[--images PATH] [--config FILE] "
    parser = add_job(jobs, "tokenizer", _tokenizer, text, _tokenizer_config, usage, names=("--config_path",))
    parser.epilog = "`dreamdrive tokenise RUN` makes tokens of recorded episodes with the result."
    text = "folder or file of pictures, videos or episodes (default: the config's own)"
    option(parser, "--images", "PATH", text, Path, names=("--train_image_root_path",))


def _add_token_codec(jobs: Group) -> None:
    text = "train an encoder and a decoder of commaVQ's tokens on a video beside them"
    usage = "[--tokens FILE] [--video FILE] [--config FILE] "
    parser = add_job(jobs, "token-codec", _token_codec, text, _token_codec_config, usage)
    option(parser, "--tokens", "FILE", "tokens of its pictures, .npy (default: the config's own)", Path)
    option(parser, "--video", "FILE", "the video (default: the config's own)", Path)


def _add_baseline(jobs: Group) -> None:
    text = "train an algorithm of stable-baselines3, in the real environment or in a run's dream"
    usage = "--algo ppo|sac [--in-dream RUN] [--frames N] [--config FILE] "
    parser = add_job(jobs, "baseline", _baseline, text, _baseline_config, usage)
    parser.epilog = "`dreamdrive eval RUN` scores the result on the official environment."
    parser.add_argument(
        "--algo", choices=("ppo", "sac"), help="the algorithm (default: the config's own, ppo)"
    )
    text = "train in the dreams of this run's world model (default: in the real environment)"
    option(parser, "--in-dream", "RUN", text, Path)
    text = "recorded episodes for dreams to begin in (default: some are driven first)"
    option(parser, "--episodes", "PATH", text, Path)
    option(parser, "--frames", "N", "frames to drive, or to dream (default: 300000)", count)


def _agent_config() -> type[OnlineConfig]:
    from train.online.config import OnlineConfig

    return OnlineConfig


def _agent(arguments: argparse.Namespace) -> None:
    from train.online.trainer import train_agent

    sizes = {}
    if arguments.size is not None:
        from agent.dreamer import size_options

        sizes = {f"agent.{name}": value for name, value in size_options(arguments.size).items()}
    train_agent(job_config(arguments, _agent_config(), sizes), arguments.run, arguments.resume)


def _tokenizer_config() -> type[ImageTokenizerTrainConfig]:
    from train.tokenizer.image_config import ImageTokenizerTrainConfig

    return ImageTokenizerTrainConfig


def _tokenizer(arguments: argparse.Namespace) -> None:
    from train.tokenizer.train_image_tokenizer import train_image_tokenizer

    options = {"images": arguments.images}
    config = job_config(arguments, _tokenizer_config(), options, resumed_config(arguments))
    train_image_tokenizer(config, arguments.run, arguments.resume)


def _token_codec_config() -> type[TokenCodecTrainConfig]:
    from train.tokenizer.token_codec_config import TokenCodecTrainConfig

    return TokenCodecTrainConfig


def _token_codec(arguments: argparse.Namespace) -> None:
    from train.tokenizer.train_token_codec import train_token_codec

    options = {"tokens": arguments.tokens, "video": arguments.video}
    config = job_config(arguments, _token_codec_config(), options, resumed_config(arguments))
    train_token_codec(config, arguments.run, arguments.resume)


def _vla_config() -> type[VLATrainConfig]:
    from train.vla.config import VLATrainConfig

    return VLATrainConfig


def _vla(arguments: argparse.Namespace) -> None:
    from train.vla.train_vla import train_vla

    train_vla(job_config(arguments, _vla_config()), arguments.run, arguments.resume)


def _teacher_config() -> type[TeacherConfig]:
    from train.vla.config import TeacherConfig

    return TeacherConfig


def _teacher(arguments: argparse.Namespace) -> None:
    from train.vla.train_vla import train_teacher

    train_teacher(job_config(arguments, _teacher_config()), arguments.run, arguments.resume)


def _baseline_config() -> type[BaselineConfig]:
    from train.baselines.config import BaselineConfig

    return BaselineConfig


def _baseline(arguments: argparse.Namespace) -> None:
    from train.baselines.job import require_stable_baselines, train_baseline

    require_stable_baselines()
    base = resumed_config(arguments) or {}
    if not arguments.resume and arguments.in_dream is not None:
        from train.drive.descriptions import describe_agent
        from train.drive.environments import require_car_racing
        from train.run.folder import Run

        # A dream of that environment.
        dreamt = describe_agent(Run.open(arguments.in_dream)).env
        base["env"] = require_car_racing(dreamt, arguments.in_dream).model_dump()
    options = {
        "algo.kind": arguments.algo,
        "in_dream": arguments.in_dream,
        "starts.episodes": arguments.episodes,
        "frames": arguments.frames,
    }
    config = job_config(arguments, _baseline_config(), options, base)
    train_baseline(config, arguments.run, arguments.resume)


def _world_model_config() -> type[WorldModelTrainConfig]:
    from train.world_model.config import WorldModelTrainConfig

    return WorldModelTrainConfig


def _world_model(arguments: argparse.Namespace) -> None:
    from train.run.errors import DreamdriveError
    from train.run.folder import Run
    from train.run.options import build, parse_overrides, read_yaml
    from train.world_model.config import WorldModelTrainConfig
    from train.world_model.trainer import train_world_model

    options = parse_overrides(arguments.rest)
    if arguments.run is not None:
        if "output_dir" in options:
            raise DreamdriveError("--run and --output-dir: two names of one folder, expected one of them")
        options["output_dir"] = str(arguments.run)
    base = None
    if arguments.resume or arguments.auto_resume:
        # The folder may be named by the config file alone.
        folder = {name: value for name, value in options.items() if name == "output_dir"}
        run = Path(build(WorldModelTrainConfig, arguments.config, folder).output_dir)
        if arguments.resume or (run / "run.json").is_file():
            base = read_yaml(Run.open(run).config_path)
    config = build(WorldModelTrainConfig, arguments.config, options, base)
    train_world_model(config, arguments.resume, arguments.auto_resume)
