from pathlib import Path

import pytest
import torch

from agent.behaviour.vla.interface import FEATURES, IMAGE, STATE, TASK, VLABatch
from tests.agent.tiny import CONFIG, PICTURES, tiny_lstm
from tests.train.vla.tiny_demonstrations import TINY, config, encode, episode, write
from train.run.errors import DreamdriveError
from train.vla.behaviour_cloning import VLALearner
from train.vla.features import FeatureExtractor, FeaturePolicy

CPU = torch.device("cpu")


class Replays:
    """Drives recorded actions, and notes the features it is shown."""

    def __init__(self, actions: torch.Tensor) -> None:
        self.actions = actions
        self.reset()

    def reset(self) -> None:
        self.features: list[torch.Tensor] = []

    def select_action(self, batch: VLABatch) -> torch.Tensor:
        self.features.append(batch[FEATURES][0])
        return self.actions[len(self.features) - 1][None]

    def predict_action_chunk(self, batch: VLABatch) -> torch.Tensor:
        self.features.append(batch[FEATURES][0])
        return self.actions[None]


@pytest.fixture
def reader() -> FeatureExtractor:
    torch.manual_seed(0)
    return FeatureExtractor(tiny_lstm(), PICTURES, CPU)


def test_driving_shows_the_features_that_were_learnt_from(reader: FeatureExtractor) -> None:
    recorded = episode(0, rows=6)
    expected = reader.episode(recorded)
    assert expected.shape == (6, reader.size) and expected.dtype == torch.float32
    replays = Replays(torch.from_numpy(recorded.actions[1:]))
    policy = FeaturePolicy(replays, reader)
    for _ in range(2):
        policy.reset()
        for row in range(6):
            image = torch.from_numpy(recorded.observations["image"][row]).float()[None] / 255
            policy.select_action({IMAGE: image, STATE: torch.zeros(1, 4), TASK: ["go"]})
        torch.testing.assert_close(torch.stack(replays.features), expected)


def test_a_chunk_is_predicted_without_driving_on(reader: FeatureExtractor) -> None:
    replays = Replays(torch.zeros(4, 2))
    policy = FeaturePolicy(replays, reader)
    batch = {IMAGE: torch.rand(1, 3, 16, 16), STATE: torch.zeros(1, 4), TASK: ["go"]}
    for _ in range(2):
        policy.predict_action_chunk(batch)
    assert torch.equal(replays.features[0], replays.features[1])


def test_the_same_episode_has_the_same_features_and_no_chance_is_used_up() -> None:
    torch.manual_seed(0)
    # Its latents are drawn.
    model = CONFIG.build(PICTURES, 2)
    reader = FeatureExtractor(model, PICTURES, CPU)
    recorded = episode(0, rows=6)
    torch.manual_seed(5)
    one = reader.episode(recorded)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1)) and torch.equal(one, reader.episode(recorded))
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_world_model_of_other_observations_or_actions_is_refused(reader: FeatureExtractor) -> None:
    with pytest.raises(DreamdriveError, match="observes birdseye, image: expected image"):
        FeatureExtractor(tiny_lstm(), {"image": (3, 16, 16), "birdseye": (3, 16, 16)}, CPU)
    blind = FeatureExtractor(tiny_lstm(), {"image": (3, 16, 16), "route": (4,)}, CPU)
    with pytest.raises(DreamdriveError, match="no 'observation.route', which the world model observes"):
        blind.observation({IMAGE: torch.zeros(1, 3, 16, 16)})
    wide = FeatureExtractor(tiny_lstm(actions=3), PICTURES, CPU)
    with pytest.raises(DreamdriveError, match="actions of 2 numbers"):
        wide.episode(episode(0))


def test_a_policy_learns_from_features(
    tmp_path: Path, reader: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FeatureExtractor, "of_run", classmethod(lambda cls, path, device: reader))
    folder = write(tmp_path / "d")
    sizes = {**TINY.model_dump(), "vision": "features"}
    run = config(folder, world_model="runs/x", policy={**sizes, "feature_size": reader.size})
    learner = VLALearner(run, encode)
    assert set(learner.training.seen) == {FEATURES, STATE}
    assert bool(torch.isfinite(learner.update()["loss"]))
    wrong = {**sizes, "feature_size": reader.size + 1}
    with pytest.raises(DreamdriveError, match=f"policy.feature_size .*: expected {reader.size}"):
        VLALearner(config(folder, world_model="runs/x", policy=wrong), encode)
