"""Live checks of a training: common issues, each reported once, with the setting to change.

The expected ranges are those that guides to training world models give: pixel error 0.01 to 0.1; KL 1 to 10
nats, once it is annealed; reward loss 0.1 to 1; dynamics consistency 0.01 to 0.1. An error below its range is
no problem; a KL may be too low, too.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from train.world_model.config import WorldModelTrainConfig

RANGES: dict[str, tuple[float, float]] = {
    "reconstruction": (0.01, 0.1),
    "kl": (1.0, 10.0),
    "reward": (0.1, 1.0),
    "dynamics": (0.01, 0.1),
}
_COLLAPSED = 0.1  # nats: the latents say nothing about the picture
_BLURRED = 0.5  # of the truth's sharpness
_WINDOW = 100  # updates
_CLIPPED = 0.5  # share of them
_SPIKE = 20.0  # times the median
_PATIENCE = 3  # validations in a row that an issue must show in: early in training it may pass


@dataclass
class Checks:
    """Checks of one run: `step` after each update, `validated` after each validation.

    Attributes:
        config: of the run.
        said: issues that were reported already.
        shown: validations in a row that each issue has shown in.
        norms: gradient norms of the last updates, before clipping.
    """

    config: WorldModelTrainConfig
    said: list[str] = field(default_factory=list)
    shown: dict[str, int] = field(default_factory=dict)
    norms: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    def step(self, step: int, grad_norm: float) -> tuple[dict[str, float], list[str]]:
        """Check an update: metrics `check/...` by name, 1 where there is an issue, and the lines to print."""
        self.norms.append(grad_norm)
        # The first gradients are large, and small steps are taken on them.
        if len(self.norms) < _WINDOW or step <= self.config.warmup_steps:
            return {}, []
        limit = self.config.max_grad_norm
        clipped = sum(norm > limit for norm in self.norms) / len(self.norms)
        median = sorted(self.norms)[len(self.norms) // 2]
        unstable = clipped > _CLIPPED or grad_norm > _SPIKE * max(median, 1e-12)
        line = (
            f"training is unstable: the gradient's norm is {grad_norm:.3g}, its median {median:.3g}, and "
            f"{clipped:.0%} of the last {_WINDOW} were above max_grad_norm {limit:g}: try a lower "
            f"learning_rate (now {self.config.learning_rate:g}), or more warmup_steps "
            f"(now {self.config.warmup_steps})"
        )
        return {"check/unstable_gradients": float(unstable)}, self._once("unstable_gradients", unstable, line)

    def validated(self, step: int, metrics: Mapping[str, float]) -> tuple[dict[str, float], list[str]]:
        """Check the metrics of a validation; returns as `step`."""
        c = self.config
        if c.model is not None:
            # The ranges are those of an RSSM.
            return {}, []
        found: dict[str, tuple[bool, str]] = {}
        annealed = step >= c.kl_anneal_steps
        kl = metrics["loss/kl"]
        if annealed:
            found["kl_collapse"] = (
                kl < _COLLAPSED,
                f"KL collapse: the latents tell {kl:.3g} nats about a picture (expected 1 to 10): try more "
                f"kl_free_bits (now {c.kl_free_bits:g}), or a lower kl_weight (now {c.kl_weight:g})",
            )
        error, sharp = metrics["loss/reconstruction"], metrics.get("sharpness", 1.0)
        found["blurry_reconstruction"] = (
            error > RANGES["reconstruction"][1] or sharp < _BLURRED,
            f"blurry reconstructions: {sharp:.0%} as sharp as the truth, pixel error {error:.3g}: try a "
            f"higher reconstruction_weight (now {c.reconstruction_weight:g}), or a larger depth "
            f"(now {c.depth})",
        )
        dreamt, repeated = metrics.get("psnr", 1.0), metrics.get("psnr_repeat", 0.0)
        found["poor_dynamics"] = (
            dreamt < repeated or metrics["loss/dynamics"] > RANGES["dynamics"][1],
            f"poor dynamics: dreams of {c.imagination_horizon} steps have {dreamt:.1f} dB, repeating the "
            f"last picture has {repeated:.1f} dB: try a longer sequence_length (now {c.sequence_length}), or "
            "more driving in data_path",
        )
        for name, (low, high) in RANGES.items():
            value = metrics[f"loss/{name}"]
            too_low = name == "kl" and value < low
            if name != "kl" or annealed:
                found[f"range_{name}"] = (
                    too_low or value > high,
                    f"{name} loss {value:.3g} is {'below' if too_low else 'above'} the expected range, "
                    f"{low:g} to {high:g}",
                )
        lines: list[str] = []
        for name, (issue, line) in found.items():
            self.shown[name] = self.shown.get(name, 0) + 1 if issue else 0
            issue = self.shown[name] >= _PATIENCE and step > c.warmup_steps
            # The named issue says more than that a value is out of its range.
            covered = {"range_kl": "kl_collapse", "range_dynamics": "poor_dynamics"}.get(name)
            if covered is None or covered not in self.said:
                lines += self._once(name, issue, line)
        return {f"check/{name}": float(issue) for name, (issue, _) in found.items()}, lines

    def _once(self, name: str, issue: bool, line: str) -> list[str]:
        if not issue or name in self.said:
            return []
        self.said.append(name)
        return [f"check: {line}"]

    def state(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {"said": list(self.said), "shown": dict(self.shown), "norms": list(self.norms)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` gave."""
        self.said, self.shown = list(state["said"]), dict(state["shown"])
        self.norms = deque(state["norms"], maxlen=_WINDOW)
