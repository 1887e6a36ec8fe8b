"""Schedules of learning rates and weights: pure functions of how far a run is to a factor. 1 is constant.

A schedule of several parts is the product of their factors. `steps` may be any unit that `step` has: updates,
epochs, or with 1 a share.
"""

import math


def linear_warm_up(step: float, steps: float) -> float:
    """Rises in equal parts to 1 in the first `steps` updates; the first one, step 0, has a part already."""
    return min(1.0, (step + 1) / max(steps, 1))


def linear_rise(step: float, steps: float) -> float:
    """Rises linearly from 0 at step 0 to 1 at `steps`, and stays there; 1 at once where `steps` is 0."""
    return min(1.0, step / steps) if steps > 0 else 1.0


def linear_decay(step: float, steps: float, final: float) -> float:
    """Falls linearly from 1 at step 0, and before, to `final` at `steps`, and stays there."""
    return 1.0 - (1.0 - final) * min(max(step, 0), steps) / steps


def cosine_decay(step: float, steps: float, final: float) -> float:
    """Falls by half a cosine from 1 at step 0, and before, to `final` at `steps`, and stays there
    (Loshchilov & Hutter 2017, equation 5, without restarts)."""
    falling = 0.5 * (1 + math.cos(math.pi * min(max(step, 0), steps) / steps))
    return final + (1 - final) * falling
