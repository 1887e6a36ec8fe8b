"""The job that teaches a vision-language-action policy from demonstrations and what they turn out to obey."""

from pathlib import Path

from train.drive.agents import VLA_JOB
from train.language.instructions import TextEncoder
from train.run.folder import run_to_resume
from train.run.options import Change, refuse_changes
from train.vla.behaviour_cloning import VLALearner
from train.vla.config import VLATrainConfig
from train.vla.job import refuse_a_second_run, run_job


def train_vla(
    config: VLATrainConfig,
    run_path: Path | None = None,
    resume: bool = False,
    encoder: TextEncoder | None = None,
) -> dict[str, float]:
    """Train a policy, from nothing or from its run's checkpoint.

    The run's folder gets, beside what every run has, `policy/`: the policy that drives, as its own
    `from_pretrained` and the evaluation read it.

    Args:
        config: of the run.
        run_path: folder of the run; None makes one.
        resume: go on with the run in it.
        encoder: of sentences; None takes the shipped one.

    Returns:
        The metrics of the last validation.

    Raises:
        DreamdriveError: see `VLALearner`; the folder holds another run, or none to resume; options changed
            that may not.
    """
    changed: list[Change] = []
    if resume:
        begun = run_to_resume(run_path).own_config(VLATrainConfig)
        # The run's own sizes are those of its data.
        sizes = {name: getattr(begun.policy, name) for name in ("state_size", "action_size", "feature_size")}
        config = config.model_copy(update={"policy": config.policy.model_copy(update=sizes)})
        changed = refuse_changes(begun, config)
    else:
        refuse_a_second_run(run_path)
    learner = VLALearner(config, encoder, resume)
    return run_job(VLA_JOB, learner.config, learner, run_path, resume, changed, _greeting(learner))


def _greeting(learner: VLALearner) -> str:
    size = sum(p.numel() for p in learner.policy.parameters() if p.requires_grad)
    rows = [learner.training, learner.validation, learner.imagined]
    counts = [
        f"{len(part):,} rows of {part.episodes} episodes {what}"
        for part, what in zip(rows, ("to learn from", "to validate on", "imagined"), strict=True)
        if part is not None
    ]
    words = "" if learner.reads is None else f"; reads {learner.reads:.1%} of the sentences kept for testing"
    return f"{size:,} parameters on {learner.device}; {', '.join(counts)}{words}"
