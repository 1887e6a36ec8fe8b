import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agent.behaviour.vla.interface import ACTION, FEATURES, IMAGE, PAD, STATE, TASK, require_policy
from agent.behaviour.vla.model import VLAConfig
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.vla import VLAPolicy, load_policy

WORDS = ("left", "right", "slow")


def encoder(texts: Sequence[str]) -> Tensor:
    """Which of the words stand in each text, (B, 4)."""
    return torch.tensor([[1.0, *(float(word in text) for word in WORDS)] for text in texts])


def tiny(**fields: object) -> VLAConfig:
    sizes = {"width": 16, "layers": 1, "heads": 2, "expert_width": 16, "expert_layers": 1, "expert_heads": 2}
    small = {"image_size": 16, "state_size": 2, "action_size": 2, "text_size": 4, "chunk": 4, "execute": 2}
    return VLAConfig.model_validate({**sizes, **small, **fields})


def make(seed: int = 0, **fields: object) -> VLAPolicy:
    torch.manual_seed(seed)
    policy = VLAPolicy(tiny(**fields), encoder)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    policy.generator = generator()
    return policy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(rows: int = 2, seed: int = 0, **changed: Any) -> dict[str, Any]:
    g = generator(seed)
    given: dict[str, Any] = {
        IMAGE: torch.rand(rows, 3, 16, 16, generator=g),
        STATE: torch.randn(rows, 2, generator=g),
        TASK: ["go left"] * rows,
        ACTION: torch.rand(rows, 4, 2, generator=g) * 2 - 1,
        PAD: torch.zeros(rows, 4, dtype=torch.bool),
    }
    return {key: value for key, value in {**given, **changed}.items() if value is not None}


def test_it_has_the_methods_of_lerobots_policies() -> None:
    policy = make()
    assert require_policy(policy, "forward", "save_pretrained", "from_pretrained") is policy
    given = batch()
    loss, metrics = policy.forward(given)
    assert loss.shape == () and loss.requires_grad and metrics == {"flow_loss": loss.item()}
    assert policy.select_action(given).shape == (2, 2)
    assert policy.predict_action_chunk(given).shape == (2, 4, 2)
    chunks = policy.predict_action_chunks(given, 3, generator())
    assert chunks.shape == (2, 3, 4, 2) and float(chunks.abs().max()) <= 1.0
    assert not chunks.requires_grad
    # What LeRobot's loaders add beside these keys does no harm.
    policy.select_action({**given, "timestamp": torch.zeros(2), "observation.images.rear": torch.zeros(1)})


def test_one_chunk_of_many_is_the_chunk() -> None:
    policy = make()
    policy.generator = generator(5)
    one = policy.predict_action_chunk(batch())
    assert torch.equal(one, policy.predict_action_chunks(batch(), 1, generator(5))[:, 0])
    many = policy.predict_action_chunks(batch(), 4, generator(5))
    assert len(many.flatten(2).unique(dim=1)[0]) == 4


def test_it_learns_what_words_mean() -> None:
    """`left` steers to -0.8, `right` to 0.8, `slow` brakes, however picture and state are."""
    policy = VLAPolicy(tiny(), encoder)
    policy.generator = generator()
    torch.manual_seed(0)
    optimiser = torch.optim.AdamW(policy.parameters(), lr=3e-3)

    def lesson(seed: int) -> dict[str, Any]:
        pick = torch.randint(0, 2, (32, 2), generator=generator(seed)).tolist()
        tasks = [f"{'left' if l else 'right'} {'slow' if s else ''}" for l, s in pick]  # noqa: E741
        wanted = torch.tensor([[-0.8 if l else 0.8, -0.5 if s else 0.5] for l, s in pick])  # noqa: E741
        return batch(32, seed, **{TASK: tasks, ACTION: wanted.unsqueeze(1).expand(-1, 4, -1)})

    losses = []
    for step in range(150):
        loss, _ = policy(lesson(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])
    test = lesson(1000)
    policy.eval()
    error = (policy.predict_action_chunk(test) - test[ACTION]).abs()
    assert float(error.mean()) < 0.12
    told_wrong = {**test, TASK: test[TASK][1:] + test[TASK][:1]}
    assert float((policy.predict_action_chunk(told_wrong) - test[ACTION]).abs().mean()) > 0.4


def test_saved_and_loaded_it_draws_the_same_bits(tmp_path: Path) -> None:
    policy = make(delay=1, background=True)
    policy.normalise_states(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0]))
    policy.save_pretrained(tmp_path / "policy")
    assert {p.name for p in (tmp_path / "policy").iterdir()} == {
        "config.json",
        "model.safetensors",
        "model.json",
    }
    for loaded in (
        VLAPolicy.from_pretrained(tmp_path / "policy", encoder),
        load_policy(tmp_path / "policy", encoder),
        load_policy(tmp_path, encoder),
    ):
        assert loaded.config == policy.config
        drawn = (p.predict_action_chunks(batch(), 3, generator(7)) for p in (policy, loaded))
        assert torch.equal(*drawn)


def test_states_are_normalised() -> None:
    plain, scaled = make(), make()
    scaled.normalise_states(torch.tensor([3.0, -1.0]), torch.tensor([2.0, 0.0]))
    given = batch()
    moved = {**given, STATE: given[STATE] * torch.tensor([2.0, 1.0]) + torch.tensor([3.0, -1.0])}
    torch.testing.assert_close(plain.predict_action_chunk(given), scaled.predict_action_chunk(moved))
    for mean, std, told in (
        (torch.zeros(3), torch.ones(2), "mean of the states"),
        (torch.zeros(2), torch.tensor([1.0, torch.nan]), "deviation"),
        (torch.zeros(2), torch.tensor([1.0, -1.0]), "none below 0"),
    ):
        with pytest.raises(DreamdriveError, match=told):
            scaled.normalise_states(mean, std)


def drive(policy: VLAPolicy, decisions: int) -> Tensor:
    """(decisions, B, A)"""
    policy.reset()
    policy.generator = generator()
    return torch.stack([policy.select_action(batch(seed=seed)) for seed in range(decisions)])


def test_chunks_are_driven_action_by_action() -> None:
    policy = make()
    driven = drive(policy, 4)
    policy.generator = generator()
    first, second = (policy.predict_action_chunk(batch(seed=seed)) for seed in (0, 2))
    assert torch.equal(driven, torch.cat([first[:, :2], second[:, :2]], 1).transpose(0, 1))


def test_how_much_of_a_chunk_is_driven_may_be_changed() -> None:
    policy = make()
    seen = batch()
    policy.generator = torch.Generator().manual_seed(0)
    policy.select_action(seen)
    policy.drive_by(1)
    assert policy.config.execute == 1 and policy.fork(0).config.execute == 1
    policy.generator = torch.Generator().manual_seed(0)
    driven = [policy.select_action(seen) for _ in range(3)]
    generator = torch.Generator().manual_seed(0)
    for action in driven:
        # The first of a new chunk each time.
        assert torch.equal(action, policy.predict_action_chunks(seen, 1, generator)[:, 0, 0])
    with pytest.raises(DreamdriveError, match="execute: 9 .*expected together at most chunk, 4"):
        policy.drive_by(9)


def test_cool_policies_drive_the_likelier_actions() -> None:
    def driven(temperature: float) -> Tensor:
        """What 64 cars that see the same do first, (64, 2)."""
        policy = make(temperature=temperature)
        same = {IMAGE: torch.full((64, 3, 16, 16), 0.5), STATE: torch.zeros(64, 2)}
        return policy.select_action(batch(64, **same))  # type: ignore[arg-type]

    hot, cool, frozen = (driven(temperature).std(0) for temperature in (1.0, 0.3, 0.0))
    assert (hot > cool).all() and (cool > frozen).all()
    torch.testing.assert_close(frozen, torch.zeros(2), atol=1e-6, rtol=0.0)
    # What is proposed to a judge is as varied as it was learnt.
    proposed = [make(temperature=t).predict_action_chunks(batch(), 3, generator(7)) for t in (1.0, 0.0)]
    torch.testing.assert_close(*proposed)


def test_with_a_delay_the_old_chunk_goes_on_and_the_new_one_continues_it() -> None:
    policy = make(chunk=6, execute=3, delay=2)
    driven = drive(policy, 7)
    policy.generator = generator()
    first, free = (policy.predict_action_chunk(batch(seed=seed)) for seed in (0, 3))
    assert torch.equal(driven[:5].transpose(0, 1), first[:, :5])
    # Then the second chunk, from its row 2 on: drawn from what was seen at decision 3, but not freely.
    policy.reset()
    assert not torch.equal(driven[5], free[:, 2])
    jump, unguided = (driven[5] - first[:, 5]).abs().mean(), (free[:, 2] - first[:, 5]).abs().mean()
    assert jump < unguided


def test_in_the_background_the_actions_are_the_same() -> None:
    fields = {"chunk": 6, "execute": 3, "delay": 2}
    assert torch.equal(drive(make(**fields), 12), drive(make(**fields, background=True), 12))


def test_inference_mode_changes_nothing() -> None:
    for delay in (0, 2):
        policy = make(chunk=6, execute=3, delay=delay)
        expected = drive(policy, 7)
        with torch.inference_mode():
            assert torch.equal(drive(policy, 7), expected)


def test_an_error_in_the_background_is_raised() -> None:
    policy = make(chunk=6, execute=3, delay=2, background=True)
    for seed in range(3):
        policy.select_action(batch(seed=seed))
    with pytest.raises(DreamdriveError, match="embeddings of shape"):
        policy.encoder = lambda texts: torch.zeros(1, 3)
        for seed in range(3):
            policy.select_action(batch(seed=seed))


def test_a_policy_can_be_copied_while_it_drives() -> None:
    policy = make()
    policy.select_action(batch())
    copied = copy.deepcopy(policy)
    assert torch.equal(policy.select_action(batch()), copied.select_action(batch()))


def test_features_take_the_place_of_the_picture() -> None:
    policy = make(vision="features", feature_size=5)
    given = batch(**{IMAGE: None, FEATURES: torch.randn(2, 5)})  # type: ignore[arg-type]
    assert policy.select_action(given).shape == (2, 2)
    with pytest.raises(DreamdriveError, match="observation.features is missing"):
        policy.select_action(batch())


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {IMAGE: None, "observation.images.rear": torch.zeros(2, 3, 16, 16)},
            "no camera observation.images.front: it has observation.images.rear",
        ),
        ({IMAGE: None}, "no camera at all"),
        ({IMAGE: torch.zeros(2, 3, 8, 8)}, r"front: shape \(2, 3, 8, 8\), expected \(B, 3, 16, 16\)"),
        ({IMAGE: torch.zeros(2, 16, 16, 3)}, r"expected \(B, 3, 16, 16\)"),
        ({IMAGE: torch.zeros(2, 1, 16, 16)}, r"expected \(B, 3, 16, 16\)"),
        ({IMAGE: torch.zeros(2, 3, 16, 16, dtype=torch.uint8)}, "front: torch.uint8, expected float32"),
        ({IMAGE: torch.full((2, 3, 16, 16), 255.0)}, r"from 255 to 255, expected numbers in \[0, 1\]"),
        ({IMAGE: torch.full((2, 3, 16, 16), torch.nan)}, "front: from nan"),
        ({IMAGE: "a picture"}, "a str, expected a tensor"),
        ({STATE: None}, r"observation.state is missing: expected float32 \(2, 2\)"),
        ({STATE: torch.zeros(2, 5)}, r"state: shape \(2, 5\), expected \(2, 2\)"),
        ({STATE: torch.zeros(3, 2)}, r"state: shape \(3, 2\), expected \(2, 2\)"),
        ({STATE: torch.full((2, 2), torch.inf)}, "state: holds NaN or infinity"),
        ({TASK: None}, "task is missing: expected 2"),
        ({TASK: ["left"]}, "1 instructions, expected 2"),
        ({TASK: "left"}, "1 instructions, expected 2"),
        ({TASK: [1, 2]}, "expected a list of texts"),
        ({TASK: 7}, "expected a list of texts"),
    ],
)
def test_a_bad_observation_is_named(changed: dict[str, Any], told: str) -> None:
    policy = make()
    for use in (policy, policy.select_action, policy.predict_action_chunk):
        with pytest.raises(DreamdriveError, match=told):
            use(batch(**changed))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({ACTION: None}, "action is missing"),
        ({ACTION: torch.zeros(2, 4, 3)}, r"action: shape \(2, 4, 3\), expected \(2, 4, 2\)"),
        ({ACTION: torch.zeros(2, 9, 2)}, r"action: shape \(2, 9, 2\), expected \(2, 4, 2\)"),
        ({ACTION: torch.full((2, 4, 2), 1.5)}, "action: from 1.5 to 1.5"),
        ({ACTION: torch.full((2, 4, 2), torch.nan)}, "action: from nan"),
        ({PAD: torch.zeros(2, 4)}, "action_is_pad: torch.float32"),
        ({PAD: torch.zeros(2, 3, dtype=torch.bool)}, r"action_is_pad: torch.bool \(2, 3\)"),
    ],
)
def test_bad_actions_are_named(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(DreamdriveError, match=told):
        make()(batch(**changed))


def test_another_number_of_rows_needs_a_reset() -> None:
    for fields in ({}, {"delay": 1}):
        policy = make(**fields)
        policy.select_action(batch(2))
        with pytest.raises(DreamdriveError, match="3 rows, expected 2 as before"):
            for _ in range(2):
                policy.select_action(batch(3))
        policy.reset()
        assert len(policy.select_action(batch(3))) == 3


def test_without_pad_all_rows_count() -> None:
    policy = make()
    losses = []
    for pad in (None, torch.zeros(2, 4, dtype=torch.bool)):
        torch.manual_seed(3)
        losses.append(policy(batch(**{PAD: pad}))[0])  # type: ignore[arg-type]
    torch.testing.assert_close(*losses)


def test_too_few_samples_and_a_wrong_encoder_are_named() -> None:
    policy = make()
    with pytest.raises(DreamdriveError, match="0 chunks"):
        policy.predict_action_chunks(batch(), 0)
    policy.encoder = lambda texts: torch.zeros(len(texts), 384)
    with pytest.raises(DreamdriveError, match=r"\(2, 384\), expected \(2, 4\)"):
        policy.select_action(batch())


def test_what_is_no_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="no policy: expected a run of train-vla"):
        load_policy(tmp_path)
    Run.create(tmp_path / "run", "train-agent", tiny())
    with pytest.raises(DreamdriveError, match="a run of the job 'train-agent' without a policy"):
        load_policy(tmp_path / "run")
    make().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    whole = json.loads(config.read_text())
    for told, text in (
        ("expected JSON", "{"),
        ("not a policy of dreamdrive", json.dumps({**whole, "type": "act"})),
        ("not a policy of dreamdrive", "[]"),
        ("chunk", json.dumps({**whole, "chunk": 0})),
        ("position", json.dumps({**whole, "chunk": 5})),
        ("missing", json.dumps({**whole, "expert_layers": 2})),
    ):
        config.write_text(text)
        with pytest.raises(DreamdriveError, match=told):
            load_policy(tmp_path, encoder)
    config.write_text(json.dumps(whole))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(DreamdriveError, match="damaged"):
        load_policy(tmp_path, encoder)
    weights.unlink()
    with pytest.raises(DreamdriveError, match=r"model\.safetensors is missing"):
        load_policy(tmp_path, encoder)
