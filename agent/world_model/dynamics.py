"""The recurrent state-space model: a block GRU and stochastic latents (Hafner et al. 2019; 2023).

    h_t = f(h_{t-1}, z_{t-1}, a_{t-1})     deterministic state
    z_t ~ q(z_t | h_t, o_t)                posterior, with the observation
    z_t ~ p(z_t | h_t)                     prior, without

Only plain tensors here: this is the inner loop.
"""

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from agent.nets import BlockLinear, NormName, linear, mlp, norm
from agent.world_model.latents import CategoricalLatent, GaussianLatentConfig, Latent


class DynamicsConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Sizes of the recurrent state-space model."""

    deter: int = 512
    """Size of the deterministic state h."""
    hidden: int = 256
    """Width of the layers round the recurrent cell."""
    variables: int = Field(32, ge=1)
    """Number of categorical latent variables."""
    classes: int = Field(16, ge=2, le=256)
    """Classes of each latent variable."""
    blocks: int = 8
    """Blocks of the recurrent cell's matrices; 1 makes them dense."""
    dynamics_layers: int = 1
    """Block-linear layers before the recurrent gates."""
    posterior_layers: int = 1
    """Layers of the posterior network."""
    prior_layers: int = 2
    """Layers of the prior network."""
    unimix: float = Field(0.01, ge=0, lt=1)
    """Share of the uniform distribution in each latent's probabilities."""
    gaussian: GaussianLatentConfig | None = None
    """Gaussian latents in the place of categorical ones; null keeps these."""

    def latent(self) -> Latent:
        """The stochastic part of the state: Gaussian if there is a config for it, else categorical."""
        if self.gaussian is not None:
            return self.gaussian.build()
        return CategoricalLatent(self.variables, self.classes, self.unimix)


def gru_update(gates: Tensor, h: Tensor) -> Tensor:
    """New state from gate pre-activations (..., 3R) in the order reset, candidate, update, and h (..., R).

    The update gate's bias of -1 makes the cell remember by default.
    """
    # The state stays in its own precision, whatever the matrices were multiplied in.
    reset, candidate, update = gates.to(h.dtype).chunk(3, -1)
    candidate = torch.tanh(torch.sigmoid(reset) * candidate)
    return torch.lerp(h, candidate, torch.sigmoid(update - 1.0))


class BlockGRU(nn.Module):
    """A GRU whose large matrices are block-diagonal: input (N, I), state (N, R) -> state (N, R).

    Every block sees its part of the state and the whole input.

    Raises:
        ValueError: the state's size is not a multiple of the number of blocks.
    """

    def __init__(self, inputs: int, deter: int, blocks: int, layers: int, norm_name: NormName) -> None:
        super().__init__()
        self.blocks = blocks
        self.layers = nn.ModuleList()
        self.norms = nn.ModuleList()
        size = deter + blocks * inputs
        for _ in range(layers):
            self.layers.append(BlockLinear(size, deter, blocks))
            self.norms.append(norm(deter, norm_name))
            size = deter
        self.gates = BlockLinear(size, 3 * deter, blocks)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """One step."""
        n, deter = h.shape
        # (blocks, N, R/blocks)
        block = h.view(n, self.blocks, -1).transpose(0, 1)
        # (blocks, N, R/blocks + I)
        y = torch.cat([block, x.unsqueeze(0).expand(self.blocks, -1, -1)], -1)
        for layer, normalise in zip(self.layers, self.norms, strict=True):
            # (N, R): the norm is over the whole state
            flat = layer(y).transpose(0, 1).reshape(n, deter)
            flat = nn.functional.silu(normalise(flat))
            y = flat.view(n, self.blocks, -1).transpose(0, 1)
        # (N, blocks, 3R/blocks)
        gates = self.gates(y).transpose(0, 1)
        return gru_update(gates, h.view(n, self.blocks, -1)).reshape(n, deter)


class Dynamics(nn.Module):
    """The cell, the prior and the posterior, and the loops over time.

    Args:
        config: sizes.
        embed: size of the encoded observation.
        action: size of the action.
        norm_name: normalisation of every layer.
    """

    def __init__(self, config: DynamicsConfig, embed: int, action: int, norm_name: NormName) -> None:
        super().__init__()
        self.latent = config.latent()
        self.deter, self.stoch = config.deter, self.latent.size
        hidden = config.hidden
        self.read_h = mlp(config.deter, hidden, 1, norm_name)
        self.read_z = mlp(self.stoch, hidden, 1, norm_name)
        self.read_a = mlp(action, hidden, 1, norm_name)
        self.cell = BlockGRU(3 * hidden, config.deter, config.blocks, config.dynamics_layers, norm_name)
        self.prior = nn.Sequential(
            mlp(config.deter, hidden, config.prior_layers, norm_name), linear(hidden, self.latent.outputs)
        )
        # The posterior's first layer, split in two, so that its large half runs once for a whole sequence.
        self.posterior_o = linear(embed, hidden)
        self.posterior_h = linear(config.deter, hidden, bias=False)
        self.posterior = nn.Sequential(
            norm(hidden, norm_name),
            nn.SiLU(),
            mlp(hidden, hidden, config.posterior_layers - 1, norm_name),
            linear(hidden, self.latent.outputs),
        )
        self._filter_step, self._predict_step = self.filter_step, self.predict_step

    def embed_action(self, action: Tensor) -> Tensor:
        """Actions (..., A) -> (..., hidden); each element is divided by max(1, |a|) first."""
        return self.read_a(action / action.detach().abs().clamp(min=1.0))

    def advance(self, h: Tensor, z: Tensor, action: Tensor) -> Tensor:
        """h_t from h (N, R), z (N, Z) and the embedded action (N, hidden)."""
        return self.cell(torch.cat([self.read_h(h), self.read_z(z), action], -1), h)

    def predict(self, h: Tensor) -> Tensor:
        """The prior's stats (..., *) in the states h (..., R)."""
        return self.latent.stats(self.prior(h))

    def imagine_step(
        self, h: Tensor, z: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One step by the prior: (N, R), (N, Z), (N, A) -> the next h and z; without `noise` (N, *) it is
        drawn here."""
        if noise is None:
            noise = self.latent.noise(h.shape[0], device=h.device)
        return self._predict_step(h, z, action, noise)

    def predict_step(self, h: Tensor, z: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """`imagine_step` with its random numbers (N, *) given, from `Latent.noise`."""
        h = self.advance(h, z, self.embed_action(action))
        return h, self.latent.sample(self.predict(h), noise)

    def observe(
        self, embed: Tensor, action: Tensor, is_first: Tensor, h: Tensor, z: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Filter sequences.

        Args:
            embed: (B, T, E) encoded observations.
            action: (B, T, A), each the action that led to its observation.
            is_first: (B, T) bool; where true, h, z and the action are zeroed first.
            h: (B, R) and z: (B, Z), the state before the first row.

        Returns:
            h (B, T, R), z (B, T, Z) and the posterior's stats (B, T, *).
        """
        b, t = is_first.shape
        # (B, T, 1)
        keep = (~is_first).unsqueeze(-1).to(embed.dtype)
        actions = self.embed_action(action * keep).unbind(1)
        observed = self.posterior_o(embed).unbind(1)
        noise = self.latent.noise(b, t, device=embed.device).unbind(1)
        hs, zs, posteriors = [], [], []
        for inputs in zip(keep.unbind(1), actions, observed, noise, strict=True):
            h, z, stats = self._filter_step(h, z, *inputs)
            hs.append(h)
            zs.append(z)
            posteriors.append(stats)
        return torch.stack(hs, 1), torch.stack(zs, 1), torch.stack(posteriors, 1)

    def filter_step(
        self, h: Tensor, z: Tensor, keep: Tensor, action: Tensor, observed: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step of `observe`.

        Args:
            h: (N, R) and z: (N, Z), the state before.
            keep: (N, 1), 0 where an episode begins.
            action: (N, hidden), embedded.
            observed: (N, hidden), the observation's part of the posterior.
            noise: (N, *) random numbers from `Latent.noise`.

        Returns:
            The next h and z, and the posterior's stats (N, *).
        """
        h = self.advance(h * keep, z * keep, action)
        stats = self.latent.stats(self.posterior(self.posterior_h(h) + observed))
        return h, self.latent.sample(stats, noise), stats

    def compile_steps(self) -> None:
        """Compile the two step functions that the loops over time call; the loops stay as they are."""
        self._filter_step = torch.compile(self.filter_step, dynamic=False)
        self._predict_step = torch.compile(self.predict_step, dynamic=False)
