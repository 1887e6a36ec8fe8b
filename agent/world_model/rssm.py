"""The RSSM world model: encoder, recurrent state-space model, decoder and heads behind the one interface."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import AliasChoices, BaseModel, Field
from tensordict import TensorDict
from torch import Tensor

from agent.nets import NormName
from agent.schedules import linear_rise
from agent.world_model.advection import Advection
from agent.world_model.decoder import Decoder, DecoderConfig
from agent.world_model.dynamics import Dynamics, DynamicsConfig
from agent.world_model.encoder import Encoder, EncoderConfig, ObservationShapes
from agent.world_model.heads import TwoHotHead
from agent.world_model.interface import Batch, Metrics, Observation, State, WorldModel
from agent.world_model.losses import (
    ObjectiveConfig,
    Terms,
    advection_loss,
    as_rows,
    consistency_loss,
    continue_loss,
    elements,
    error_per_element,
    kl_losses,
    masked_mean,
    picture_structure,
    recorded_value_loss,
    reward_loss,
    weighted_terms,
)


class RSSMConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """The RSSM world model."""

    fixed_on_resume: ClassVar[str] = "the checkpoint's weights would not fit"

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
    advection: bool = False
    """Paint the pictures of dreams from the last one seen, moved and repainted; see `Advection`. Only the
    objective of recorded driving trains it."""
    units: int = 256
    """Width of the reward, continue and value heads."""
    reward_layers: int = 1
    """Layers of the reward head."""
    continue_layers: int = 1
    """Layers of the continue head."""
    value_layers: int = 3
    """Layers of the value head."""
    free_nats: Annotated[float, "may change on resume"] = 1.0
    """The KL of a step counts only above this [nats]."""
    prior_weight: Annotated[float, "may change on resume"] = Field(
        1.0, validation_alias=AliasChoices("prior_weight", "dynamics_weight")
    )
    """Weight of the KL that trains the prior towards the posterior; once called `dynamics_weight`."""
    representation_weight: Annotated[float, "may change on resume"] = 0.1
    """Weight of the KL that trains the posterior towards the prior."""
    reconstruction_weight: Annotated[float, "may change on resume"] = 1.0
    """Weight of the reconstruction loss."""
    vector_weight: Annotated[float, "may change on resume"] = 1.0
    """Weight of a vector observation beside a picture: pictures have many more numbers, and what matters of a
    vector, a car's speed, may be a small difference."""
    reward_weight: Annotated[float, "may change on resume"] = 1.0
    """Weight of the reward loss."""
    continue_weight: Annotated[float, "may change on resume"] = 1.0
    """Weight of the continue loss."""

    def build(self, shapes: ObservationShapes, action_size: int) -> "RSSM":
        """The model for observations of these shapes, name -> (C, S, S) or (D,), and actions of that size."""
        return RSSM(self, shapes, action_size)


class RSSM(WorldModel):
    """A world model with a recurrent state.

    States are {"deter": (B, R), "stoch": (B, V, K) one-hot}, or with Gaussian latents "stoch": (B, Z).
    """

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
        self.advection: Advection | None = None
        if config.advection:
            self.advection = Advection(config.decoder, self.feature_size, shapes, config.norm)
        self.build_heads(config)

    def compile_steps(self) -> None:
        """Compile the steps of the dynamics."""
        self.dynamics.compile_steps()

    def _state(self, h: Tensor, z: Tensor) -> State:
        stoch = z.unflatten(-1, self.dynamics.latent.shape)
        return TensorDict({"deter": h, "stoch": stoch}, batch_size=h.shape[:-1])

    def _stoch(self, state: State) -> Tensor:
        """The stochastic part, flat: (..., Z)."""
        return state["stoch"].flatten(state.batch_dims)

    def initial(self, batch_size: int) -> State:
        """All zeros, (B)."""
        like = self.dynamics.posterior_h.weight
        return self._state(
            like.new_zeros(batch_size, self.dynamics.deter), like.new_zeros(batch_size, self.dynamics.stoch)
        )

    def features(self, state: State) -> Tensor:
        """Deterministic and flattened stochastic part side by side, (..., R + Z)."""
        return torch.cat([state["deter"], self._stoch(state)], -1)

    def filter(
        self, observations: Observation, actions: Tensor, is_first: Tensor, state: State
    ) -> tuple[State, Tensor]:
        """Filter a sequence, as `observe` does: states (B, T) and the posterior's stats (B, T, *)."""
        # (B, T, E)
        embed = self.encoder(as_rows(observations)).unflatten(0, is_first.shape)
        h, z, posterior = self.dynamics.observe(embed, actions, is_first, state["deter"], self._stoch(state))
        return self._state(h, z), posterior

    def prior(self, state: State) -> Tensor:
        """The prior's stats (..., *) in states (...): what was expected before the observation."""
        return self.dynamics.predict(state["deter"])

    def observe(
        self, observations: Observation, actions: Tensor, is_first: Tensor, state: State
    ) -> tuple[State, State]:
        """Filter a sequence; see `WorldModel.observe`. The priors are samples too."""
        states, _ = self.filter(observations, actions, is_first, state)
        latent, prior = self.dynamics.latent, self.prior(states).detach()
        predicted = latent.sample(prior, latent.noise(*is_first.shape, device=prior.device))
        return states, self._state(states["deter"], predicted)

    def imagine_step(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """Sample the next state (B) by the prior."""
        h, z = self.dynamics.imagine_step(state["deter"], self._stoch(state), action, noise)
        return self._state(h, z)

    def noise(self, batch_size: int) -> Tensor:
        """What the latent is drawn with, (B, *)."""
        return self.dynamics.latent.noise(batch_size, device=self.dynamics.posterior_h.weight.device)

    def decode(self, state: State) -> dict[str, Tensor]:
        """Observations of states (...); see `WorldModel.decode`."""
        features = self.features(state)
        decoded = self.decoder(features.flatten(0, -2))
        return {name: value.unflatten(0, features.shape[:-1]) for name, value in decoded.items()}

    def paint(self, states: State, last: Observation) -> dict[str, Tensor]:
        """Observations of a dream's states (B, H); see `WorldModel.paint`."""
        if self.advection is None:
            return self.decode(states)
        carried = self.advection.unroll(self.features(states), last)
        painted = {name: pictures.clamp(0.0, 1.0) for name, pictures in carried.items()}
        # What is painted need not be decoded.
        rest = self.decoder.vectors or painted.keys() != self.decoder.images.keys()
        return (self.decode(states) if rest else {}) | painted

    def _shared(self, observation: Observation) -> dict[str, Tensor]:
        """Observations (B, T, ...) with pictures cut into patches, once where encoder and decoder agree."""
        if self.config.encoder.patch != self.config.decoder.patch:
            return dict(observation)
        b_t = next(iter(observation.values())).shape[:2]
        cut = self.encoder.in_patches(as_rows(observation))
        return {name: value.unflatten(0, b_t) for name, value in cut.items()}

    def terms(self, batch: Batch, state: State) -> Terms:
        """What the losses on a batch are made of; `state` (B) is the one before its first rows."""
        observation = self._shared(batch.observation)
        states, posterior = self.filter(observation, batch.action, batch.is_first, state)
        prior = self.prior(states)
        # (B, T, F)
        features = self.features(states)
        predicted = self.decoder.predict(features.flatten(0, 1))
        return Terms(
            states,
            features,
            posterior,
            prior,
            predicted,
            self.decoder.losses(predicted, as_rows(observation)),
            *kl_losses(self.dynamics.latent, posterior, prior, self.config.free_nats),
            reward_loss(self.reward_head, features, batch.reward),
            continue_loss(self.continue_head, features, batch.is_terminal),
        )

    def loss_and_states(self, batch: Batch, state: State) -> tuple[Tensor, Metrics, State]:
        """Reconstruction, KL, reward and continue losses, averaged over batch and time, and the states.

        The value head is trained by the behaviour that uses it.
        """
        terms = self.terms(batch, state)
        loss, metrics = weighted_terms(terms, self.config, self.dynamics.latent, self.decoder.vectors)
        return loss, metrics | {"loss/world_model": loss.detach()}, terms.states

    def objective(
        self,
        batch: Batch,
        state: State,
        config: ObjectiveConfig,
        step: int,
        slow_value: TwoHotHead | None = None,
    ) -> tuple[Tensor, Metrics, State]:
        """The loss on recorded driving alone: that of `loss_and_states`, and those that `config` weighs.

        Args:
            batch: B sequences of T >= 2 rows.
            state: (B), the state before the first rows.
            config: weights beside the model's own.
            step: updates done before this one, for the annealing.
            slow_value: gives the values that the returns bootstrap from; without it the value head itself.

        Returns:
            The scalar loss; its metrics, scalars; and the filtered states (B, T) with their graph. The loss
            has the squared errors of pictures and features summed over elements and averaged over rows; the
            metrics `loss/reconstruction` and `loss/dynamics` are those of one element, colours in [0, 1].

        Raises:
            ValueError: the sequences have one row, so that no reward follows any; or SSIM or gradients have
                a weight and there are no pictures, or too small ones.
        """
        if batch.reward.shape[1] < 2:
            raise ValueError(f"objective: sequences of {batch.reward.shape[1]} rows: expected at least 2")
        terms, latent = self.terms(batch, state), self.dynamics.latent
        kl = linear_rise(step, config.kl_anneal_steps)
        value, of_value = recorded_value_loss(self.value_head, terms.features, batch, config, slow_value)
        # In a first row there is nothing to predict from. (B, T)
        consistency = consistency_loss(latent, terms.posterior, terms.prior)
        consistent = masked_mean(consistency, ~batch.is_first)
        loss, metrics = weighted_terms(terms, self.config, latent, self.decoder.vectors, kl)
        loss = loss + config.value_weight * value + config.consistency_weight * consistent
        if config.ssim_weight or config.gradient_weight:
            unlike, rough = picture_structure(
                self.decoder, terms.predicted, batch.observation, config.structure_scales
            )
            loss = loss + config.ssim_weight * unlike.mean() + config.gradient_weight * rough.mean()
            metrics |= {"loss/ssim": unlike.detach().mean(), "loss/gradient": rough.detach().mean()}
        if self.advection is not None and self.advection.names:
            painted = self._painted_error(
                self.advection, batch, terms.states.detach(), config.advection_steps
            )
            loss = loss + config.advection_weight * painted
            metrics["loss/advection"] = painted.detach() / elements(batch.observation, self.advection.names)
        kl_weight = kl * (self.config.prior_weight + self.config.representation_weight)
        metrics |= {
            "loss/reconstruction": error_per_element(terms.reconstruction, batch.observation).detach(),
            **of_value,
            "loss/dynamics": consistent.detach() / latent.size,
            "loss/world_model": loss.detach(),
            "kl_weight": loss.detach().new_tensor(kl_weight),
        }
        return loss, metrics, terms.states

    def _painted_error(self, advection: Advection, batch: Batch, states: State, steps: int) -> Tensor:
        """The mean `advection_loss` of dreams from a row at random, the same one in all sequences.

        They have up to `steps` steps, as chance has it: far steps are wrong by much more than near ones,
        which would otherwise not count.
        """
        rows = batch.reward.shape[1]
        steps = int(torch.randint(1, min(steps, rows - 1) + 1, ()))
        seen = int(torch.randint(rows - steps, ()))
        with torch.no_grad():
            dream = self.imagine_along(states[:, seen], batch.action[:, seen + 1 : seen + 1 + steps])
            features = self.features(dream.states[:, 1:])
        error = advection_loss(advection, features, batch.observation, seen)
        # Until another episode begins.
        same = batch.is_first[:, seen + 1 : seen + 1 + steps].cumsum(1) == 0
        return masked_mean(error, same)

    def compress(self, state: State) -> dict[str, Tensor]:
        """The deterministic part in half precision, the stochastic one as class indices, or in half, too."""
        return {"deter": state["deter"].half(), "stoch": self.dynamics.latent.compress(state["stoch"])}

    def expand(self, stored: Mapping[str, Tensor]) -> State:
        """The inverse of `compress`."""
        return self._state(stored["deter"].float(), self.dynamics.latent.expand(stored["stoch"]))
