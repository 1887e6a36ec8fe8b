"""The RSSM world model: encoder, recurrent state-space model, decoder and heads behind the one interface."""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel
from tensordict import TensorDict
from torch import Tensor

from agent.distributions import categorical_kl, sample_one_hot
from agent.nets import NormName
from agent.world_model.decoder import Decoder, DecoderConfig
from agent.world_model.dynamics import Dynamics, DynamicsConfig
from agent.world_model.encoder import Encoder, EncoderConfig, ObservationShapes
from agent.world_model.heads import ContinueHead, TwoHotHead
from agent.world_model.interface import Batch, Metrics, Observation, State, WorldModel


class RSSMConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """The RSSM world model."""

    kind: Literal["rssm"] = "rssm"
    """Which world model."""
    dynamics: DynamicsConfig = DynamicsConfig()
    """Sizes of the recurrent state-space model."""
    encoder: EncoderConfig = EncoderConfig()
    """Observations to a vector."""
    decoder: DecoderConfig = DecoderConfig()
    """Features to observations."""
    norm: NormName = "rms"
    """Normalisation: `rms` as in the recipe, `layer` where no GPU is (its CPU kernel is faster)."""
    units: int = 256
    """Width of the reward, continue and value heads."""
    reward_layers: int = 1
    """Layers of the reward head."""
    continue_layers: int = 1
    """Layers of the continue head."""
    value_layers: int = 3
    """Layers of the value head."""
    free_nats: float = 1.0
    """The KL of a step counts only above this [nats]."""
    dynamics_weight: float = 1.0
    """Weight of the KL that trains the prior towards the posterior."""
    representation_weight: float = 0.1
    """Weight of the KL that trains the posterior towards the prior."""
    reconstruction_weight: float = 1.0
    """Weight of the reconstruction loss."""
    reward_weight: float = 1.0
    """Weight of the reward loss."""
    continue_weight: float = 1.0
    """Weight of the continue loss."""

    def build(self, shapes: ObservationShapes, action_size: int) -> "RSSM":
        """The model for observations of these shapes, name -> (C, S, S) or (D,), and actions of that size."""
        return RSSM(self, shapes, action_size)


def kl_losses(posterior: Tensor, prior: Tensor, free_nats: float) -> tuple[Tensor, Tensor, Tensor]:
    """KL with free bits, one copy for each side of the balance (Hafner et al. 2023, equation 5).

    Args:
        posterior: (..., S, K) log-probabilities.
        prior: (..., S, K) log-probabilities.
        free_nats: below this, the KL of a step gives no gradient [nats].

    Returns:
        (dynamics, representation, kl), (...) each: the first trains the prior only, the second the
        posterior only, the third is the plain KL for the log.
    """
    dynamics = categorical_kl(posterior.detach(), prior)
    representation = categorical_kl(posterior, prior.detach())
    return dynamics.clamp(min=free_nats), representation.clamp(min=free_nats), dynamics.detach()


class RSSM(WorldModel):
    """A world model with a recurrent state; states are {"deter": (B, D), "stoch": (B, S, K) one-hot}."""

    def __init__(self, config: RSSMConfig, shapes: ObservationShapes, action_size: int) -> None:
        super().__init__()
        self.config = config
        self.action_size = action_size
        self.encoder = Encoder(config.encoder, shapes, config.norm)
        self.dynamics = Dynamics(config.dynamics, self.encoder.out_size, action_size, config.norm)
        deter = self.dynamics.deter
        self.feature_size = deter + self.dynamics.stoch
        self.feature_parts = {"observed": slice(deter, self.feature_size), "memory": slice(0, deter)}
        self.decoder = Decoder(config.decoder, self.feature_size, shapes, config.norm)
        size, units, norm = self.feature_size, config.units, config.norm
        self.reward_head = TwoHotHead(size, units, config.reward_layers, norm)
        self.continue_head = ContinueHead(size, units, config.continue_layers, norm)
        self.value_head = TwoHotHead(size, units, config.value_layers, norm)

    def compile_steps(self) -> None:
        """Compile the steps of the dynamics."""
        self.dynamics.compile_steps()

    def _state(self, h: Tensor, z: Tensor) -> State:
        stoch = z.unflatten(-1, (self.dynamics.variables, self.dynamics.classes))
        return TensorDict({"deter": h, "stoch": stoch}, batch_size=h.shape[:-1])

    def initial(self, batch_size: int) -> State:
        """All zeros, (B)."""
        like = self.dynamics.posterior_h.weight
        return self._state(
            like.new_zeros(batch_size, self.dynamics.deter), like.new_zeros(batch_size, self.dynamics.stoch)
        )

    def features(self, state: State) -> Tensor:
        """Deterministic and flattened stochastic part side by side, (..., D + S*K)."""
        return torch.cat([state["deter"], state["stoch"].flatten(-2)], -1)

    def _filter(
        self, observations: Observation, actions: Tensor, is_first: Tensor, state: State
    ) -> tuple[Tensor, Tensor, Tensor]:
        b, t = is_first.shape
        flat = {name: value.flatten(0, 1) for name, value in observations.items()}
        # (B, T, E)
        embed = self.encoder(flat).unflatten(0, (b, t))
        h, z = state["deter"], state["stoch"].flatten(-2)
        return self.dynamics.observe(embed, actions, is_first, h, z)

    def observe(
        self, observations: Observation, actions: Tensor, is_first: Tensor, state: State
    ) -> tuple[State, State]:
        """Filter a sequence; see `WorldModel.observe`. The priors are samples too."""
        h, z, _ = self._filter(observations, actions, is_first, state)
        prior = self.dynamics.log_probs(self.dynamics.prior(h))
        uniform = torch.rand(prior.shape[:-1], device=prior.device)
        predicted = sample_one_hot(prior.exp(), uniform).flatten(-2)
        return self._state(h, z), self._state(h, predicted)

    def imagine_step(self, state: State, action: Tensor) -> State:
        """Sample the next state (B) by the prior."""
        h, z = self.dynamics.imagine_step(state["deter"], state["stoch"].flatten(-2), action)
        return self._state(h, z)

    def decode(self, state: State) -> dict[str, Tensor]:
        """Observations of states (...); see `WorldModel.decode`."""
        features = self.features(state)
        decoded = self.decoder(features.flatten(0, -2))
        return {name: value.unflatten(0, features.shape[:-1]) for name, value in decoded.items()}

    def reward(self, state: State) -> Tensor:
        """Expected reward that arrives with each state, (...)."""
        return self.reward_head.mean(self.reward_head(self.features(state)))

    def value(self, state: State) -> Tensor:
        """Expected discounted return from each state on, (...)."""
        return self.value_head.mean(self.value_head(self.features(state)))

    def cont(self, state: State) -> Tensor:
        """Probability that the episode goes on in each state, (...)."""
        return self.continue_head.mean(self.continue_head(self.features(state)))

    def loss_and_states(self, batch: Batch, state: State) -> tuple[Tensor, Metrics, State]:
        """Reconstruction, KL, reward and continue losses, averaged over batch and time, and the states.

        The value head is trained by the behaviour that uses it.
        """
        c = self.config
        h, z, posterior = self._filter(batch.observation, batch.action, batch.is_first, state)
        prior = self.dynamics.log_probs(self.dynamics.prior(h))
        # (B, T, F)
        features = torch.cat([h, z], -1)
        flat = {name: value.flatten(0, 1) for name, value in batch.observation.items()}
        reconstruction = self.decoder.losses(features.flatten(0, 1), flat)
        dynamics, representation, kl = kl_losses(posterior, prior, c.free_nats)
        reward = self.reward_head.loss(self.reward_head(features), batch.reward)
        goes_on = 1.0 - batch.is_terminal.float()
        cont = self.continue_head.loss(self.continue_head(features), goes_on)
        loss = (
            c.reconstruction_weight * torch.stack(list(reconstruction.values())).sum(0).mean()
            + c.dynamics_weight * dynamics.mean()
            + c.representation_weight * representation.mean()
            + c.reward_weight * reward.mean()
            + c.continue_weight * cont.mean()
        )
        metrics = {
            f"loss/reconstruction_{name}": value.detach().mean() for name, value in reconstruction.items()
        }
        metrics |= {
            "loss/kl": kl.mean(),
            "loss/reward": reward.detach().mean(),
            "loss/continue": cont.detach().mean(),
            "loss/world_model": loss.detach(),
            "latent/posterior_entropy": -(posterior.exp() * posterior).sum((-2, -1)).detach().mean(),
            "latent/prior_entropy": -(prior.exp() * prior).sum((-2, -1)).detach().mean(),
        }
        return loss, metrics, self._state(h, z)

    def compress(self, state: State) -> dict[str, Tensor]:
        """The deterministic part in half precision, the stochastic one as class indices."""
        return {"deter": state["deter"].half(), "stoch": state["stoch"].argmax(-1).to(torch.uint8)}

    def expand(self, stored: Mapping[str, Tensor]) -> State:
        """The inverse of `compress`."""
        z = F.one_hot(stored["stoch"].long(), self.dynamics.classes).float().flatten(-2)
        return self._state(stored["deter"].float(), z)
