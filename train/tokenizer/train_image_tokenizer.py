"""The training job of an image tokenizer: `dreamdrive train tokenizer`."""

from pathlib import Path

from train.drive.descriptions import TOKENIZER_JOB, TokenizerDescription
from train.pictures.pairs import draw_pairs
from train.run.checkpoint import save_checkpoint, save_weights
from train.run.device import pick_device, set_up_cpu
from train.run.errors import explain_value_errors
from train.run.folder import Run, run_to_resume
from train.run.loop import Cadence, TrainingLoop
from train.run.monitor import Stopped, monitored
from train.run.options import Change, refuse_changes
from train.tokenizer.feature_network import feature_weights_file, load_feature_network
from train.tokenizer.image_config import ImageTokenizerTrainConfig
from train.tokenizer.image_learner import ImageTokenizerLearner
from train.tokenizer.pictures import PictureSet, open_pictures


def train_image_tokenizer(
    config: ImageTokenizerTrainConfig, run_path: Path | None = None, resume: bool = False
) -> dict[str, float]:
    """Train an image tokenizer on pictures, videos or episodes, from nothing or from its run's checkpoint.

    The run's folder gets, beside what every run has, its weights, which describe themselves, and in
    `pictures/` held-out pictures over their reconstructions, one file for each validation.

    Args:
        config: of the run.
        run_path: folder of the run; None makes one.
        resume: go on with the run in it.

    Returns:
        The metrics of the last validation.

    Raises:
        DreamdriveError: see `ImageTokenizerLearner` and `open_pictures`; the folder holds another run, or
            none to resume; options changed that may not; losses need features that are not installed.
    """
    changed: list[Change] = []
    if resume:
        changed = refuse_changes(run_to_resume(run_path).own_config(ImageTokenizerTrainConfig), config)
    device = pick_device(config.device)
    set_up_cpu(config.threads)
    if config.loss.perceptual_weight or config.loss.distillation_weight:
        feature_weights_file()
    with explain_value_errors("config: "):
        config.tokenizer.build()
    pictures, held_out = _open(config, config.images), None
    if config.validation_images:
        held_out = _open(config, config.validation_images)
    wants_features = config.loss.perceptual_weight or config.loss.distillation_weight
    features = load_feature_network(device) if wants_features else None
    learner = ImageTokenizerLearner(config, pictures, held_out, features, device)
    if resume:
        run = Run.resume(run_to_resume(run_path).path)
        run.write_config(config)
        learner.load(run.checkpoint_path)
    else:
        run = Run.create(run_path, TOKENIZER_JOB, config)
    return _learn(config, learner, run, resume, changed)


def _open(config: ImageTokenizerTrainConfig, images: str) -> PictureSet:
    path = Path(images)
    cache = (
        Path(config.cache_dir) if config.cache_dir else (path if path.is_dir() else path.parent) / ".cache"
    )
    return open_pictures(path, config.tokenizer.height, config.tokenizer.width, cache, config.skip_damaged)


def _learn(
    config: ImageTokenizerTrainConfig,
    learner: ImageTokenizerLearner,
    run: Run,
    resume: bool,
    changed: list[Change],
) -> dict[str, float]:
    """Train in a run's folder, tracked, until the learner is done or a signal comes."""
    description = TokenizerDescription(seed=config.seed, tokenizer=config.tokenizer)

    def save() -> None:
        save_checkpoint(run.checkpoint_path, learner.state())

    def export() -> None:
        tensors = {f"tokenizer.{name}": value for name, value in learner.averaged.state_dict().items()}
        save_weights(run.path, tensors, description.meta())

    with monitored(run, config.updates, done=learner.step) as monitor:
        monitor.track(run, TOKENIZER_JOB, config, learner.step if resume else None)
        learner.say = monitor.say
        count = sum(p.numel() for p in learner.tokenizer.parameters())
        monitor.say(
            *(f"changed: {change}" for change in changed),
            f"{len(learner.pictures):,} pictures, {count:,} parameters, "
            f"{learner.tokenizer.tokens} tokens of {learner.tokenizer.codebook_size:,} codes a picture",
        )

        def publish() -> None:
            export()
            path = run.pictures / f"reconstruction_{learner.step:07d}.png"
            draw_pairs(path, *learner.shown(), ("pictures", "reconstructions"))
            if monitor.tracker is not None:
                monitor.tracker.artifact(path, "pictures")

        cadence = Cadence(log_updates=config.log_updates, save_minutes=config.checkpoint_minutes)
        loop = TrainingLoop(learner, save, cadence, monitor, publish)
        if learner.step == 0:
            # From here on the run can be resumed, whatever happens.
            loop.save()
        try:
            found = loop.run()
        except Stopped:
            export()
            raise
        export()
        if learner.pictures.damaged:
            some = ", ".join(str(path) for path in sorted(learner.pictures.damaged)[:5])
            monitor.say(f"{len(learner.pictures.damaged)} damaged files were left out: {some}")
    return found
