from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from agent.behaviour.planner import imagined_returns
from agent.behaviour.vla.interface import FEATURES, IMAGE, ChunkPolicy, VLABatch
from agent.distributions import Deterministic
from tests.train.vla.road import HALF, MOST, Random, Road, batch, drive, step
from tests.train.vla.test_imagined import CONFIG, gauges
from train.language.hindsight import CAR_RACING_SPEEDS, Labels
from train.language.instructions import lookup_labels
from train.run.errors import DreamdriveError
from train.vla.chunk_scoring import ChunkScorer, ChunkScoringConfig, imagine_chunks, obedience
from train.vla.features import FeatureExtractor, FeaturePolicy
from train.vla.guidance import WorldModelGuidedTrainer


def means(text: str) -> Labels:
    """What the tests' instructions ask for."""
    known = {"fast": Labels("fast"), "crawl": Labels("crawl"), "left": Labels(None, "left")}
    return known.get(text, Labels())


def guided(k: int = 16, **config: float) -> WorldModelGuidedTrainer:
    judged = ChunkScoringConfig.model_validate({"horizon": 6, **config})
    return WorldModelGuidedTrainer(
        Random(), Road(), None, k, judged, gauges(), CAR_RACING_SPEEDS, means, observations=("image",)
    )


def drives(policy: ChunkPolicy, text: str, decisions: int = 30) -> tuple[float, float]:
    """Speed [m/s] and offset [m] that a policy gets to on the road from 40 m/s in the middle of it."""
    policy.reset()
    offset, speed = torch.tensor(0.0), torch.tensor(40.0)
    for _ in range(decisions):
        action = policy.select_action(batch(float(offset), float(speed), text))[0]
        offset, speed = step(offset, speed, action)
    return float(speed), float(offset)


def test_one_candidate_is_the_policy_itself() -> None:
    alone, both = Random(), guided(1)
    for decision in range(10):
        seen = batch(0.5 * decision, 30.0, ["fast", "crawl"])
        assert torch.equal(both.select_action(seen), alone.select_action(seen))
    assert torch.equal(both.predict_action_chunk(seen), alone.predict_action_chunk(seen))
    both.reset()
    alone.reset()
    assert torch.equal(both.select_action(seen), alone.select_action(seen))


def test_guidance_obeys_where_the_policy_ignores_its_instruction() -> None:
    alone = [drives(Random(), "fast")[0] for _ in range(3)]
    faster, _ = drives(guided(), "fast")
    slower, _ = drives(guided(obedience=20.0), "crawl")
    _, left = drives(guided(returns=0.0), "left")
    assert faster > np.mean(alone) + 10 and faster > 60
    assert slower < 18 and left > 0.25 * HALF


def test_guidance_without_probes_maximises_returns() -> None:
    trainer = WorldModelGuidedTrainer(Random(), Road(), candidates=16)
    assert drives(trainer, "crawl")[0] > 70
    assert trainer.last is not None and (trainer.last.obedience == 1).all()


def test_chunks_are_executed_before_others_are_proposed() -> None:
    trainer = guided(4)
    policy = trainer.policy
    assert isinstance(policy, Random)
    for _ in range(7):
        trainer.select_action(batch(0.0, 30.0, "fast"))
    # Three decisions of each chunk
    assert len(policy.asked) == 3
    assert trainer.last is not None and trainer.last.scores.shape == (1, 4)


def test_the_state_follows_what_was_driven() -> None:
    class Remembers(Road):
        def encode(self, observation, state=None, action=None, is_first=None):  # type: ignore[no-untyped-def]
            seen.append((bool(is_first.all()), action.clone()))
            return super().encode(observation, state, action, is_first)

    seen: list[tuple[bool, Tensor]] = []
    trainer = WorldModelGuidedTrainer(Random(), Remembers(), candidates=3)
    first = trainer.select_action(batch(0.0, 30.0))
    trainer.select_action(batch(0.0, 30.0))
    trainer.reset()
    trainer.select_action(batch(0.0, 30.0))
    assert [fresh for fresh, _ in seen] == [True, False, True]
    assert not seen[0][1].any() and torch.equal(seen[1][1], first)


class Steered:
    """Reads features: proposes chunks that go to both sides and along, and notes what it was shown."""

    config = SimpleNamespace(action_size=2, chunk=4, execute=2)

    def __init__(self) -> None:
        self.shown: list[Tensor] = []

    def reset(self) -> None:
        self.shown = []

    def predict_action_chunk(self, batch: VLABatch) -> Tensor:
        self.shown.append(batch[FEATURES])
        side = (-1.0, 0.0, 1.0)[len(self.shown) % 3]
        return torch.tensor([side, 0.0]).expand(len(batch[FEATURES]), 4, 2)

    def select_action(self, batch: VLABatch) -> Tensor:
        return self.predict_action_chunk(batch)[:, 0]


@pytest.mark.parametrize("shared", [True, False])
def test_a_policy_of_features_is_guided_and_sees_what_was_driven(shared: bool) -> None:
    """Its own filter goes on with the actions that the judge chose, and is the judge's where it may be."""

    class Leads(Road):
        def encode(self, observation, state=None, action=None, is_first=None):  # type: ignore[no-untyped-def]
            led.append(action.clone())
            return super().encode(observation, state, action, is_first)

    led: list[Tensor] = []
    own = Steered()
    reader = FeatureExtractor(Leads(), {"image": (3, 8, 8)}, torch.device("cpu"))
    policy = FeaturePolicy(own, reader)
    judge, dreams = ChunkScoringConfig(horizon=4, returns=0.0), Leads()
    if shared:
        dreams.load_state_dict(reader.world_model.state_dict())
    trainer = WorldModelGuidedTrainer(
        policy, dreams, None, 3, judge, gauges(), CAR_RACING_SPEEDS, means, observations=("image",)
    )
    _, left = drives(trainer, "left", 10)
    assert left > 0.25 * HALF
    # Shown when it proposes: 5 times 3 chunks; the offsets are those of the car.
    assert len(own.shown) == 15 and own.shown[-1][0, 0] > 0.25
    chosen = trainer.select_action(batch(0.0, 30.0, "left"))
    trainer.select_action(batch(0.0, 30.0, "left"))
    assert not led[0].any() and torch.equal(led[-1], chosen)
    # Pictures are filtered once where policy and judge read the same world model.
    assert len(led) == (12 if shared else 24)
    with pytest.raises(DreamdriveError, match="another world model's features"):
        other = Road()
        other.device.data.fill_(1.0)
        strange = FeaturePolicy(own, FeatureExtractor(other, {"image": (3, 8, 8)}, torch.device("cpu")))
        WorldModelGuidedTrainer(strange, Road(), gauges=gauges()).imagined_data([drive(0)], CONFIG)


def test_plan_action_takes_our_names_and_lerobots() -> None:
    image = (batch(0.0, 30.0)[IMAGE] * 255).round().byte()  # type: ignore[attr-defined]
    one = guided().plan_action({"image": image[0], "state": np.zeros(4, np.float32), "task": "fast"})
    several = guided().plan_action({"image": image, "state": torch.zeros(1, 4), "task": ["fast"]})
    lerobot = guided().plan_action(batch(0.0, 30.0, "fast"))
    assert one.shape == (2,) and several.shape == (1, 2)
    assert torch.equal(one, several[0]) and torch.equal(several, lerobot)
    with pytest.raises(DreamdriveError, match="no 'task'"):
        guided().plan_action({"image": image, "state": torch.zeros(1, 4)})
    with pytest.raises(DreamdriveError, match=r"state \(4,\)"):
        guided().plan_action({"image": image, "state": torch.zeros(4), "task": "fast"})
    with pytest.raises(DreamdriveError, match="2 tasks for 1 pictures"):
        guided().plan_action({"image": image, "state": torch.zeros(1, 4), "task": ["a", "b"]})


def test_dreams_of_one_state_share_their_random_numbers() -> None:
    model = Road(wind=0.5)
    state = model._state(torch.zeros(2), torch.full((2,), 30.0))
    same = torch.zeros(2, 5, 6, 2)
    offsets = imagine_chunks(model, state, same, 6).states["x"][..., 0].view(2, 5, 7)
    assert (offsets == offsets[:, :1]).all() and (offsets[0] != offsets[1]).any()
    assert offsets[0, 0].unique().numel() == 7


def test_returns_are_those_of_the_world() -> None:
    model = Road()
    state = model._state(torch.zeros(1), torch.full((1,), 40.0))
    chunks = torch.zeros(1, 2, 4, 2)
    chunks[0, 1, :, 1] = 1.0
    judged = ChunkScorer(model, ChunkScoringConfig(horizon=4, discount=0.9))(state, chunks)
    speeds = 40.0 + 8.0 * torch.arange(1, 5)
    reward = sum(0.9**k * float(speeds[k]) / MOST for k in range(4))
    expected = reward + 0.9**4 * 10.0 * float(speeds[-1]) / MOST
    assert float(judged.returns[0, 1]) == pytest.approx(expected, abs=1e-4)
    assert int(judged.best()[0]) == 1
    value = model.value(judged.trajectory.states[:, -1])
    torch.testing.assert_close(imagined_returns(judged.trajectory, value, 0.9).view(1, 2), judged.returns)


def test_the_actor_drives_on_where_the_chunk_ends() -> None:
    model = Road()
    state = model._state(torch.zeros(1), torch.full((1,), 40.0))
    full = torch.tensor([0.0, 1.0])
    actor = lambda features: Deterministic(full.expand(*features.shape[:-1], 2))  # noqa: E731
    chunks = torch.zeros(1, 3, 2, 2)
    alone = imagine_chunks(model, state, chunks, 5)
    longer = imagine_chunks(model, state, chunks, 5, actor)
    assert alone.actions.shape == (3, 2, 2) and longer.actions.shape == (3, 5, 2)
    assert (longer.actions[:, 2:] == full).all() and (longer.actions[:, :2] == 0).all()


def test_obedience_is_whole_within_and_falls_outside() -> None:
    speeds = torch.tensor([5.0, 10.0, 16.0, 30.0, 70.0])
    crawl = obedience(Labels("crawl"), speeds, torch.zeros(5), CAR_RACING_SPEEDS)
    assert (crawl[:2] == 1).all() and (crawl[1:].diff() < 0).all()
    fast = obedience(Labels("fast"), speeds, torch.zeros(5), CAR_RACING_SPEEDS)
    assert fast[-1] == 1 and (fast.diff() > 0).all()
    places = torch.tensor([-0.5, 0.0, 0.5, 1.5])
    left = obedience(Labels(None, "left"), torch.zeros(4), places, CAR_RACING_SPEEDS)
    assert left[2] == 1 and (left[[0, 1, 3]] < 0.6).all() and left[1] > left[0]
    both = obedience(Labels("crawl", "left"), torch.full((4,), 10.0), places, CAR_RACING_SPEEDS)
    torch.testing.assert_close(both, left)
    assert (obedience(Labels(), speeds, places[:1].expand(5), CAR_RACING_SPEEDS) == 1).all()


def test_imagined_data_and_training_as_in_the_readme() -> None:
    trainer = guided()
    imagined = trainer.imagined_data([drive(0), drive(1)], CONFIG)
    assert len(imagined) > 0 and lookup_labels(imagined[0]["task"]) is not None
    assert imagined[0]["action"].shape == (6, 2)
    with pytest.raises(DreamdriveError, match="forward|no method"):
        trainer.train(imagined, updates=1)
    with pytest.raises(DreamdriveError, match="need gauges"):
        WorldModelGuidedTrainer(Random(), Road()).imagined_data([drive(0)])


def test_what_does_not_fit_is_named() -> None:
    class Half:
        def reset(self) -> None: ...
        def select_action(self, batch: VLABatch) -> None: ...

    with pytest.raises(DreamdriveError, match="no method predict_action_chunk"):
        WorldModelGuidedTrainer(Half(), Road())
    with pytest.raises(DreamdriveError, match="Linear has no method initial"):
        WorldModelGuidedTrainer(Random(), torch.nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(DreamdriveError, match="2 numbers, expected 3, as the policy's"):
        WorldModelGuidedTrainer(Random(actions=3), Road())
    with pytest.raises(DreamdriveError, match="3 numbers: expected 2, as the world model's"):
        imagine_chunks(Road(), Road().initial(1), torch.zeros(1, 2, 4, 3), 4)
    with pytest.raises(DreamdriveError, match="candidates 0"):
        WorldModelGuidedTrainer(Random(), Road(), candidates=0)
