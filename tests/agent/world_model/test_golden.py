"""The RSSM with categorical latents gives what it gave before there were others.

To the bit, where the machine computes as the one did on which the values were recorded, else nearly.

`python -m tests.agent.world_model.test_golden` records them anew, for a change that is meant to be seen.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from agent.world_model.interface import Batch
from agent.world_model.rssm import RSSM
from tests.agent.tiny import CONFIG, SHAPES, batch, tiny_rssm

VALUES = Path(__file__).with_name("golden.json")


def layered() -> RSSM:
    """Another tiny model: dense cell, layer norm, deeper networks, pictures only."""
    dynamics = CONFIG.dynamics.model_copy(
        update={"blocks": 1, "posterior_layers": 2, "prior_layers": 1, "dynamics_layers": 2, "unimix": 0.0}
    )
    config = CONFIG.model_copy(update={"dynamics": dynamics, "norm": "layer", "free_nats": 0.1})
    return config.build({"image": SHAPES["image"]}, 3)


CASES: dict[str, tuple[Callable[[], RSSM], Callable[[], Batch]]] = {
    "tiny": (tiny_rssm, lambda: batch(3, 5)),
    "layered": (layered, lambda: batch(2, 4, actions=3, shapes={"image": SHAPES["image"]})),
}


def probe() -> list[Tensor]:
    """What tells whether this machine computes as another does, without anything of the model."""
    torch.manual_seed(3)
    a, x, image = torch.randn(384, 768), torch.randn(12, 384), torch.randn(12, 3, 64, 64)
    y = x @ a
    kernel = torch.randn(32, 3, 3, 3)
    return [y, y.softmax(-1), y.sum(0), torch.rand(9).log(), torch.nn.functional.conv2d(image, kernel)]


def results(name: str) -> dict[str, Tensor]:
    """Everything a model of `CASES` does with random numbers and gradients, name -> tensor."""
    make, data = CASES[name]
    torch.manual_seed(11)
    model, rows = make(), data()
    b = rows.reward.shape[0]
    torch.manual_seed(12)
    found: dict[str, Tensor] = {f"start/{key}": p for key, p in model.named_parameters()}
    states, priors = model.observe(rows.observation, rows.action, rows.is_first, model.initial(b))
    found |= {"deter": states["deter"], "stoch": states["stoch"], "prior": priors["stoch"]}
    trajectory = model.imagine(states[:, -1].detach(), lambda _: rows.action[:, 1], 4)
    found |= {"imagined/deter": trajectory.states["deter"], "imagined/stoch": trajectory.states["stoch"]}
    found |= {"imagined/rewards": trajectory.rewards, "imagined/continues": trajectory.continues}
    found |= {f"decoded/{key}": value for key, value in model.decode(states).items()}
    found |= {"value": model.value(states), "features": model.features(states)}
    found |= {f"stored/{key}": value for key, value in model.compress(states.detach()).items()}
    expanded = model.expand(model.compress(states.detach()))
    found |= {f"expanded/{key}": value for key, value in expanded.items()}
    loss, metrics, after = model.loss_and_states(rows, model.initial(b))
    (loss + 0.1 * model.value(after).sum()).backward()
    found |= {"loss": loss, "after": after["stoch"], **metrics}
    found |= {f"gradient/{key}": p.grad for key, p in model.named_parameters() if p.grad is not None}
    found["random"] = torch.rand(5)
    return {key: value.detach() for key, value in found.items()}


def digest(tensors: list[Tensor]) -> str:
    """SHA-256 of the bytes of tensors, one after the other, as far as it takes to tell them apart."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return total.hexdigest()[:16]


def summary(tensor: Tensor) -> list[float]:
    """Sum and size of a tensor, six digits."""
    return [float(f"{x:.6g}") for x in (tensor.double().sum().item(), tensor.double().norm().item())]


@pytest.mark.parametrize("name", sorted(CASES))
def test_numbers_are_those_of_before(name: str) -> None:
    golden = json.loads(VALUES.read_text())
    found = {f"{name}: {key}": value for key, value in results(name).items()}
    assert set(found) == {key for key in golden if key.startswith(f"{name}: ")}
    exact = [digest(probe())] == golden["probe"]
    for key, value in found.items():
        if exact:
            assert digest([value]) == golden[key][0], key
        else:
            total, size = summary(value)
            assert size == pytest.approx(golden[key][2], rel=0.02, abs=0.02), key
            # In a sum of millions that cancel, what is left is rounding.
            assert total == pytest.approx(golden[key][1], rel=0.02, abs=0.02 + 1e-6 * size), key


def record() -> None:
    """Write the values of the code as it is."""
    torch.set_num_threads(1)
    golden: dict[str, list[object]] = {"probe": [digest(probe())]}
    for name in CASES:
        for key, value in results(name).items():
            golden[f"{name}: {key}"] = [digest([value]), *summary(value)]
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
    VALUES.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    record()
