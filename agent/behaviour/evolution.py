"""Evolved controllers: all weights in one flat genome, a whole population in one matrix product.

Ha & Schmidhuber 2018, section 2.3: a linear map of what is seen, or of that and the memory, to the action.
"""

from itertools import pairwise
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from agent.distributions import Deterministic
from agent.world_model.interface import State, WorldModel

_ROUNDING = 1e-6
"""Deviations below this share of the largest are float32's rounding."""


class ControllerConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """A small controller that is evolved."""

    fixed_on_resume: ClassVar[str] = "the checkpoint's weights would not fit"

    kind: Literal["controller"] = "controller"
    """Which behaviour."""
    inputs: Literal["observed", "observed_memory"] = "observed"
    """What it reads of a state: what stands for the observation (codes), or that and the memory."""
    hidden_units: int = Field(0, ge=0)
    """Width of a hidden layer with tanh; 0 makes the controller linear."""
    components: int = Field(0, ge=0)
    """Principal components that it reads of these inputs, each with deviation 1 over what was recorded, so
    that every direction of the search matters alike; 0 reads the inputs as they are."""
    state_dim: int = Field(4, ge=1)
    """Numbers that stand for the observation: those of the world model, 4 for one token [8, 5, 5, 5]."""

    def build(self, world_model: WorldModel) -> "EvolutionaryController":
        """The controller for a world model's features and actions."""
        return EvolutionaryController(self, world_model)


def forward_genomes(genomes: Tensor, sizes: list[int], x: Tensor) -> Tensor:
    """Many small networks side by side, tanh after every layer.

    Args:
        genomes: (P, n); of each layer in turn the matrix, one row an output, and the bias.
        sizes: numbers of each layer, the input's first.
        x: (P, N, sizes[0]).

    Returns:
        (P, N, sizes[-1]) within (-1, 1).
    """
    at = 0
    for inputs, outputs in pairwise(sizes):
        matrix = genomes[:, at : at + inputs * outputs].unflatten(1, (outputs, inputs))
        at += inputs * outputs
        bias = genomes[:, at : at + outputs].unsqueeze(1)
        at += outputs
        x = torch.tanh(torch.baddbmm(bias, x, matrix.mT))
    return x


class EvolutionaryController(nn.Module):
    """A deterministic policy whose weights are one vector, `genome` (n,), which no gradient trains.

    The genome starts at zero, where every action is zero.

    With `components` it reads a few principal components of its I inputs, `(inputs - centre) @ basis`, which
    `fit_components` finds; linear on these is linear on the inputs, with fewer directions to search.

    Raises:
        ValueError: `state_dim` is not the size of the world model's observed part, or there are more
            components than inputs.
    """

    centre: Tensor
    basis: Tensor

    def __init__(self, config: ControllerConfig, world_model: WorldModel) -> None:
        super().__init__()
        self.config = config
        observed, memory = (world_model.feature_parts[name] for name in ("observed", "memory"))
        size = observed.stop - observed.start
        if config.state_dim != size:
            raise ValueError(
                f"controller: state_dim {config.state_dim}: expected {size}, the numbers that stand for an "
                "observation in the world model"
            )
        self._slices = [observed] if config.inputs == "observed" else [observed, memory]
        inputs = sum(part.stop - part.start for part in self._slices)
        if config.components:
            if config.components > inputs:
                raise ValueError(
                    f"controller: components {config.components}: expected at most {inputs}, its inputs"
                )
            self.register_buffer("centre", torch.zeros(inputs))
            self.register_buffer("basis", torch.zeros(inputs, config.components))
            inputs = config.components
        hidden = [config.hidden_units] if config.hidden_units else []
        self.sizes = [inputs, *hidden, world_model.action_size]
        count = sum(a * b + b for a, b in pairwise(self.sizes))
        self.genome = nn.Parameter(torch.zeros(count), requires_grad=False)

    def read(self, features: Tensor) -> Tensor:
        """Inputs (..., I) out of features (..., F), or their components (..., components)."""
        inputs = torch.cat([features[..., part] for part in self._slices], -1)
        return (inputs - self.centre) @ self.basis if self.config.components else inputs

    def fit_components(self, features: Tensor) -> float:
        """Find the principal components of what is read of features (N, F), and give the share of their
        variance that the components hold (Jolliffe 2002, "Principal Component Analysis").

        Raises:
            ValueError: fewer rows vary than there are components.
        """
        inputs = torch.cat([features[..., part] for part in self._slices], -1).double()
        centre = inputs.mean(0)
        deviations, directions = torch.linalg.svd(inputs - centre, full_matrices=False)[1:]
        kept, varied = self.config.components, int((deviations > _ROUNDING * deviations[0]).sum())
        if kept > varied:
            raise ValueError(
                f"controller: components {kept}: expected at most {varied}, the directions in which what was "
                "recorded varies"
            )
        spread = deviations[:kept] / (len(inputs) - 1) ** 0.5
        # A direction's sign means nothing; with its largest entry positive it does not depend on the library.
        rows = directions[:kept]
        signs = rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
        self.centre.copy_(centre)
        self.basis.copy_((signs * rows).T / spread)
        return float((deviations[:kept] ** 2).sum() / (deviations**2).sum())

    def policy(self, features: Tensor) -> Deterministic:
        """The action (..., A) within (-1, 1) for features (..., F)."""
        x = self.read(features)
        flat = forward_genomes(self.genome.unsqueeze(0), self.sizes, x.reshape(1, -1, x.shape[-1]))
        return Deterministic(flat.view(*x.shape[:-1], self.sizes[-1]))


class Population:
    """P controllers of one build, each with its own genome, acting side by side.

    Args:
        controller: the build.
        genomes: (P, n) float32.

    Raises:
        ValueError: the genomes are not of the controller's length.
    """

    def __init__(self, controller: EvolutionaryController, genomes: Tensor) -> None:
        expected = controller.genome.numel()
        if genomes.ndim != 2 or genomes.shape[1] != expected:
            raise ValueError(f"population: genomes of shape {tuple(genomes.shape)}: expected (P, {expected})")
        self.controller = controller
        self.genomes = genomes

    def __len__(self) -> int:
        """P."""
        return self.genomes.shape[0]

    def act(self, features: Tensor) -> Tensor:
        """Actions (P, N, A) for features (P, N, F): one product a layer for all."""
        return forward_genomes(self.genomes, self.controller.sizes, self.controller.read(features))


@torch.no_grad()
def dream_fitness(world_model: WorldModel, population: Population, starts: State, length: int) -> Tensor:
    """Mean undiscounted return of each controller in the dream, (P,).

    Each of P controllers dreams from each of the N `starts` for `length` steps, all in one batch of P * N.
    Dream e of every controller has the same start and the same random numbers at every step (common random
    numbers: Law & Kelton, "Simulation Modeling and Analysis", on comparing systems): luck that all share does
    not change their ranks, and equal controllers are equally fit.
    A reward counts with the probability that the dream goes on until it arrives: the product of the continue
    probabilities of all states reached before. So nothing is earned after an end.

    Args:
        world_model: dreams.
        population: P controllers.
        starts: (N) states.
        length: steps [decisions].
    """
    p, e = len(population), starts.batch_size[0]
    state: State = starts.unsqueeze(0).expand(p, e).flatten()
    alive = torch.ones(p * e, device=population.genomes.device)
    total = torch.zeros_like(alive)
    for _ in range(length):
        features = world_model.features(state).unflatten(0, (p, e))
        # (P * N, ...)
        noise = world_model.noise(e).repeat(p, 1)
        state = world_model.imagine_step(state, population.act(features).flatten(0, 1), noise)
        total += alive * world_model.reward(state)
        alive = alive * world_model.cont(state)
    return total.view(p, e).mean(1)
