from functools import cache

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset

from agent.behaviour.vla.interface import ACTION, IMAGE, PAD, STATE, TASK
from tests.train.vla.road import HALF, MOST, Random, Road, drive, step
from tests.train.vla.test_probes import fitted
from train.data.episodes import Episode, from_file_order, to_file_order
from train.language.hindsight import CAR_RACING_SPEEDS, label_rows
from train.language.instructions import lookup_labels
from train.run.errors import DreamdriveError
from train.vla.episode_rows import InstructionDataset, collate_rows, train_on_rows
from train.vla.features import FeatureExtractor, weights_fingerprint
from train.vla.imagined import ChunkDriver, ImaginedConfig, ImaginedReport, imagine_data
from train.vla.probes import DreamProbes

CONFIG = ImaginedConfig(horizon=10, starts=3, variations=2, least=4, skip=1, window=4)


@cache
def gauges() -> DreamProbes:
    return fitted()


def made(
    config: ImaginedConfig = CONFIG, seed: int = 0, count: int = 3
) -> tuple[list[Episode], ImaginedReport]:
    drives = [drive(seed) for seed in range(100, 100 + count)]
    return imagine_data(Road(), gauges(), drives, CAR_RACING_SPEEDS, config, Random(), seed=seed)


def test_dreams_are_episodes_that_begin_in_real_rows_and_obey_the_world() -> None:
    episodes, report = made()
    assert report.dreams == 18 and report.kept == len(episodes) > 6
    assert report.kept_steps == sum(len(episode) for episode in episodes)
    real = [drive(seed) for seed in range(100, 103)]
    for episode in episodes:
        again = from_file_order("x", to_file_order("x", episode))
        assert again.extras["imagined"].all() and not again.extras["perturbed"].any()
        assert again.extras["expert_actions"].shape == (len(again), 2)
        np.testing.assert_array_equal(again.extras["expert_actions"], again.actions[1:])
        # The first row is a row of one of the drives.
        image, speed = again.observations["image"][0], again.extras["speeds"][0]
        found = [
            row
            for one in real
            for row in range(len(one))
            if (one.observations["image"][row] == image).all() and one.extras["speeds"][row] == speed
        ]
        assert found
        # What is dreamt is what the world does of these actions.
        offset, true = torch.tensor(float(again.extras["offsets"][0])), torch.tensor(float(speed))
        for action in again.actions[1:]:
            offset, true = step(offset, true, torch.from_numpy(action))
        shown = again.observations["image"][-1, :, 0, 0] / 255
        assert abs((shown[0] - 0.5) * 16 - float(offset)) < 0.3
        assert abs(shown[1] * MOST - float(true)) < 2.0


def test_features_of_imagined_episodes_are_kept_for_the_same_world_model() -> None:
    road, other = Road(), Road()
    other.load_state_dict(road.state_dict())
    assert weights_fingerprint(road) == weights_fingerprint(other)
    other.device.data.fill_(1.0)
    assert weights_fingerprint(road) != weights_fingerprint(other)
    episodes, _ = imagine_data(road, gauges(), [drive(100)], CAR_RACING_SPEEDS, CONFIG, Random())
    same = FeatureExtractor(road, {"image": (3, 8, 8)}, torch.device("cpu"))
    another = FeatureExtractor(other, {"image": (3, 8, 8)}, torch.device("cpu"))
    for episode in episodes:
        again = from_file_order("x", to_file_order("x", episode))
        kept = again.extras["features"]
        assert kept.shape == (len(again), 2) and kept.dtype == np.float16
        assert torch.equal(same.episode(again), torch.from_numpy(kept.astype(np.float32)))
        # Of another one, by the pictures, which are whole grey levels.
        torch.testing.assert_close(another.episode(again), same.episode(again), rtol=0, atol=0.02)
        assert not torch.equal(another.episode(again), same.episode(again))
    again.extras["features"] = kept[1:]
    shapes = f".{len(kept) - 1}, 2. float16, expected .{len(kept)}, 2"
    with pytest.raises(DreamdriveError, match=f"'features': {shapes}"):
        same.episode(again)


def test_no_dream_leaves_the_road_or_goes_where_the_model_is_unsure() -> None:
    wild = CONFIG.model_copy(update={"noise": 1.5, "policy_share": 0.0, "horizon": 20, "least": 1})
    episodes, report = made(wild, count=6)
    assert report.off_road + report.unsure + report.over > 0
    assert report.kept_steps < report.steps
    model = Road()
    for episode in episodes:
        states, _ = model.observe(
            {"image": torch.from_numpy(episode.observations["image"])},
            torch.zeros(1),
            torch.zeros(1),
            model.initial(1),
        )
        features = model.features(states)
        assert (abs(gauges().read(features).offsets) < HALF + 0.2).all()
    tame, told = made(CONFIG.model_copy(update={"noise": 0.05, "policy_share": 0.0}))
    assert told.kept_steps / told.steps > report.kept_steps / report.steps
    assert tame


def test_hindsight_labels_dreams_by_what_they_came_to() -> None:
    episodes, report = made(count=6)
    labels = [row for episode in episodes for row in label_rows(episode, CAR_RACING_SPEEDS, 4)]
    assert report.labelled == sum(bool(row) for row in labels) > 0.2 * report.kept_steps
    assert sum(count > 0 for count in report.speeds.values()) >= 3
    assert set(report.probe) == set(gauges().scores)


def test_the_same_seed_dreams_the_same() -> None:
    one, two, other = made(), made(), made(seed=1)
    for a, b in zip(one[0], two[0], strict=True):
        assert (a.observations["image"] == b.observations["image"]).all() and (a.actions == b.actions).all()
    assert any(
        a.actions.shape != b.actions.shape or (a.actions != b.actions).any()
        for a, b in zip(one[0], other[0], strict=False)
    )


def test_a_policy_in_a_dream_sees_what_the_world_model_shows() -> None:
    model, policy = Road(), Random(execute=2)
    state = model._state(torch.tensor([1.0, -1.0]), torch.tensor([30.0, 60.0]))
    driver = ChunkDriver(policy, model, gauges(), ["crawl along", "keep left"])
    actions = [driver(state) for _ in range(3)]
    assert len(policy.asked) == 2 and actions[0].shape == (2, 2)
    seen = policy.asked[0]
    torch.testing.assert_close(seen[IMAGE], model.decode(state)["image"])
    assert seen[TASK] == ["crawl along", "keep left"]
    torch.testing.assert_close(seen[STATE], gauges().read(model.features(state)).state)
    assert abs(float(seen[STATE][1, 0]) - 0.6) < 0.1


def test_rows_obey_what_their_sentence_says_and_join_real_ones() -> None:
    episodes, _ = made()
    imagined = InstructionDataset(episodes, CAR_RACING_SPEEDS, chunk=6, window=4)
    real = InstructionDataset([drive(0)], CAR_RACING_SPEEDS, chunk=6, window=4)
    both = ConcatDataset([real, imagined])  # type: ignore[var-annotated]
    assert len(both) == len(real) + len(imagined) > len(real) > 0
    row = both[len(real)]
    assert row[IMAGE].shape == (3, 8, 8) and row[STATE].shape == (4,)
    assert row[ACTION].shape == (6, 2) and row[PAD].shape == (6,)
    for index in range(0, len(imagined), 7):
        assert lookup_labels(imagined[index][TASK]) == imagined.labels[index]
        assert imagined[index][TASK] == imagined[index][TASK]
    batch = collate_rows([both[0], both[len(real)]])
    assert batch[IMAGE].shape == (2, 3, 8, 8) and len(batch[TASK]) == 2


def test_a_policy_learns_such_rows() -> None:
    class Learner(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(4, 12)

        def reset(self) -> None: ...
        def select_action(self, batch: object) -> None: ...
        def predict_action_chunk(self, batch: object) -> None: ...
        def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
            error = self.net(batch[STATE]).view(-1, 6, 2) - batch[ACTION]
            return error.square()[~batch[PAD]].mean(), {}

    rows = InstructionDataset([drive(seed) for seed in range(4)], CAR_RACING_SPEEDS, chunk=6, window=4)
    losses = train_on_rows(Learner(), rows, 60, 32, 3e-2, 0)
    assert len(losses) == 60 and np.mean(losses[-10:]) < np.mean(losses[:5])
    with pytest.raises(DreamdriveError, match="has no method forward|no method"):
        train_on_rows(Random(), rows, 1, 8, 1e-3, 0)
    with pytest.raises(DreamdriveError, match="no row to learn from"):
        train_on_rows(Learner(), InstructionDataset([], CAR_RACING_SPEEDS), 1, 8, 1e-3, 0)
