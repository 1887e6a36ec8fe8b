"""The training job of an encoder and a decoder of commaVQ's tokens: `dreamdrive train token-codec`."""

from pathlib import Path

from agent.tokenizer.token_codec import TokenCodec, TokenCodecConfig
from train.convert.recorded.commavq_tokens import GRID, KINDS, RATE, read_token_frames
from train.pictures.pairs import draw_pairs
from train.run.checkpoint import fit_weights, load_weights, save_checkpoint, save_weights
from train.run.device import pick_device, set_up_cpu
from train.run.errors import DreamdriveError, explain_value_errors
from train.run.folder import Run, run_to_resume
from train.run.loop import Cadence, TrainingLoop
from train.run.monitor import Stopped, monitored
from train.run.options import Change, refuse_changes, validate
from train.tokenizer.pictures import open_pictures
from train.tokenizer.token_codec_config import TokenCodecTrainConfig
from train.tokenizer.token_codec_learner import PairedFrames, TokenCodecLearner

CODEC_JOB = "train-token-codec"
"""The job whose runs hold networks for given tokens; `load_token_codec` loads them."""


def train_token_codec(
    config: TokenCodecTrainConfig, run_path: Path | None = None, resume: bool = False
) -> dict[str, float]:
    """Train both networks on a video and its tokens, from nothing or from the run's checkpoint.

    Args:
        config: of the run.
        run_path: folder of the run; None makes one.
        resume: go on with the run in it.

    Returns:
        The metrics `test/...` of the chosen weights on the end of the video, which nothing else looked at.

    Raises:
        DreamdriveError: tokens or video cannot be read or do not fit each other or the config; the folder
            holds another run, or none to resume; options changed that may not.
    """
    changed: list[Change] = []
    if resume:
        changed = refuse_changes(run_to_resume(run_path).own_config(TokenCodecTrainConfig), config)
    device = pick_device(config.device)
    set_up_cpu(config.threads)
    c = config.codec
    if (c.rows, c.columns, c.codebook_size) != (*GRID, KINDS):
        raise DreamdriveError(
            f"codec: {c.rows}x{c.columns} tokens of {c.codebook_size} kinds: expected commaVQ's "
            f"{GRID[0]}x{GRID[1]} of {KINDS}"
        )
    with explain_value_errors("config: "):
        c.build()
    frames = paired_frames(config)
    learner = TokenCodecLearner(config, frames, _split(config, len(frames.tokens)), device)
    if resume:
        run = Run.resume(run_to_resume(run_path).path)
        run.write_config(config)
        learner.load(run.checkpoint_path)
    else:
        run = Run.create(run_path, CODEC_JOB, config)
    return _learn(config, learner, run, resume, changed)


def paired_frames(config: TokenCodecTrainConfig) -> PairedFrames:
    """The video's pictures beside their tokens. Raises `DreamdriveError` where they are not as many."""
    tokens = read_token_frames(Path(config.tokens))
    video, c = Path(config.video), config.codec
    cache = Path(config.cache_dir) if config.cache_dir else video.parent / ".cache"
    pictures = open_pictures(video, c.rows * c.compression, c.columns * c.compression, cache)
    if len(pictures) != len(tokens):
        raise DreamdriveError(
            f"{video}: {len(pictures)} pictures, expected {len(tokens)} as in {config.tokens}"
        )
    return PairedFrames(pictures, tokens)


def _split(config: TokenCodecTrainConfig, frames: int) -> tuple[int, int]:
    """Numbers of the first frame to choose by, and of the first one to judge on."""
    learn = round(config.learn_seconds * RATE)
    choose = learn + round(config.choose_seconds * RATE)
    if not 0 < learn < choose < frames:
        raise DreamdriveError(
            f"{config.tokens}: {frames / RATE:g} s: expected more than learn_seconds and choose_seconds "
            f"together, {config.learn_seconds:g} + {config.choose_seconds:g}, of a frame or more each"
        )
    return learn, choose


def load_token_codec(path: Path, device: str = "auto") -> TokenCodec:
    """The networks of a run of `train token-codec`, in evaluation, frozen.

    Raises:
        DreamdriveError: there is no such run, or its weights do not fit its description.
    """
    run = Run.open(path)
    if run.record.job != CODEC_JOB:
        raise DreamdriveError(
            f"{run.path / 'run.json'}: a run of the job '{run.record.job}': expected {CODEC_JOB}"
        )
    tensors, meta = load_weights(run.path)
    codec = validate(TokenCodecConfig, meta.get("codec") or {}, str(run.path / "weights.json")).build()
    fit_weights(codec, tensors, str(path), "its description")
    return codec.to(pick_device(device)).eval().requires_grad_(False)


def _learn(
    config: TokenCodecTrainConfig, learner: TokenCodecLearner, run: Run, resume: bool, changed: list[Change]
) -> dict[str, float]:
    """Train in a run's folder, tracked, until the learner is done or a signal comes; then judge once."""
    result: dict[str, float] = {}

    def save() -> None:
        save_checkpoint(run.checkpoint_path, learner.state())

    def export() -> None:
        meta = {"kind": "token_codec", "seed": config.seed, "codec": config.codec.model_dump(mode="json")}
        save_weights(run.path, learner.chosen().state_dict(), meta)

    with monitored(run, config.updates, done=learner.step) as monitor:
        monitor.track(run, CODEC_JOB, config, learner.step if resume else None)
        count = sum(p.numel() for p in learner.codec.parameters())
        first, last = learner.split
        monitor.say(
            *(f"changed: {change}" for change in changed),
            f"{count:,} parameters; {first} frames to learn from, {last - first} to choose by, "
            f"{len(learner.frames.tokens) - last} to judge on",
        )

        def publish() -> None:
            export()
            path = run.pictures / f"painted_{learner.step:07d}.png"
            draw_pairs(path, *learner.shown(), ("pictures", "painted from tokens"))
            if monitor.tracker is not None:
                monitor.tracker.artifact(path, "pictures")

        cadence = Cadence(log_updates=config.log_updates, save_minutes=config.checkpoint_minutes)
        loop = TrainingLoop(learner, save, cadence, monitor, publish)
        if learner.step == 0:
            # From here on the run can be resumed, whatever happens.
            loop.save()
        try:
            loop.run()
        except Stopped:
            export()
            raise
        export()
        found = learner.measure(learner.chosen(), last, len(learner.frames.tokens))
        result = {f"test/{name}": value for name, value in found.items()}
        monitor.log(result, learner.step)
        monitor.say(", ".join(f"{name} {value:.4g}" for name, value in result.items()))
    return result
