"""Time alignment from the simulators to the batches and the imagined trajectories."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.train.online.tiny_envs import Counting, TinyEnv, count_reward, counting, ends_after, tiny_config
from train.online.build import build_parts
from train.online.trainer import Trainer, loop
from train.run.folder import Run, StopSignal
from train.run.progress import Progress
from train.run.tracking import Tracker


def start(run_path: Path, **fields: Any) -> Trainer:
    """A trainer at its beginning, untracked."""
    config = tiny_config(**fields)
    run = Run.create(run_path, "train-agent", config)
    trainer = Trainer(
        config, run, Progress("test", None), Tracker(run.path), counting, build_parts(config, counting)
    )
    trainer.begin()
    return trainer


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Trainer]:
    # The prefill is long enough that no step asks for more than one update.
    trainer = start(tmp_path / "run", prefill_frames=48)
    yield trainer
    trainer.collector.close()


def batches(trainer: Trainer, count: int) -> Iterator[dict[str, np.ndarray]]:
    """Sampled batches, every field (B, T, ...)."""
    for _ in range(count):
        sample = trainer.replay.sample()
        yield {
            **{name: value.numpy() for name, value in sample.observation.items()},
            "action": sample.action.numpy(),
            "reward": sample.reward.numpy(),
            "is_first": sample.is_first.numpy(),
            "is_terminal": sample.is_terminal.numpy(),
        }


def test_every_sampled_row_holds_what_arrived_together(trainer: Trainer) -> None:
    loop(trainer, StopSignal())
    kinds = set()
    for rows in batches(trainer, 60):
        counter, env, episode, step = np.moveaxis(rows["facts"], -1, 0)
        first, terminal = rows["is_first"], rows["is_terminal"]
        np.testing.assert_array_equal(rows["image"][..., 0, 0, 0], counter % 256)
        np.testing.assert_array_equal(rows["image"][..., 0, 0, 1], env)
        np.testing.assert_array_equal(rows["action"], rows["echo"])
        np.testing.assert_array_equal(first, step == 0)
        np.testing.assert_array_equal(rows["action"][first], 0.0)
        assert (rows["action"][~first] != 0).all()
        np.testing.assert_array_equal(rows["reward"], np.where(first, 0.0, count_reward(counter)))
        ends = [
            [ends_after(int(i), int(e)) for i, e in zip(*pair, strict=True)]
            for pair in zip(env, episode, strict=True)
        ]
        length, terminates = np.array(ends).transpose(2, 0, 1)
        np.testing.assert_array_equal(terminal, (step == length) & terminates.astype(bool))
        # One simulator a sequence, no step left out; only a new segment breaks the count.
        assert (env == env[:, :1]).all()
        goes_on = np.diff(counter, axis=1) == 1
        new_segment = first[:, 1:] & (episode[:, 1:] == 0) & ~goes_on
        assert (goes_on | new_segment).all()
        # The row before a first row is the last of its episode, or of a segment.
        last = (step == length)[:, :-1]
        np.testing.assert_array_equal(first[:, 1:], last | new_segment)
        kinds |= {
            (bool(t), bool(n))
            for t, n in zip(terminal[:, :-1][first[:, 1:]], new_segment[first[:, 1:]], strict=True)
        }
    assert {(True, False), (False, False), (False, True)} <= kinds, "not every kind of end was sampled"


def test_the_row_after_a_planned_checkpoint_is_first(trainer: Trainer) -> None:
    """Without one the simulators would go on counting; the last row of the segment is kept."""
    streams: list[list[Any]] = [[] for _ in range(3)]
    add = trainer.replay.add

    def spy(observation: Any, action: Any, reward: Any, is_first: Any, *others: Any) -> None:
        for i in range(3):
            streams[i].append((*observation["facts"][i].tolist(), bool(is_first[i])))
        add(observation, action, reward, is_first, *others)

    trainer.replay.add = spy  # type: ignore[assignment, method-assign]
    loop(trainer, StopSignal())
    for rows in streams:
        begins = [k for k, row in enumerate(rows) if row[2] == 0 and row[3] == 0]
        assert len(begins) == 3, "240 frames, a checkpoint every 100: three segments"
        assert all(rows[k][4] for k in begins)
        bases = [rows[k][0] for k in begins]
        assert len(set(bases)) == 3, "each segment has its own seed"
        for a, b in itertools.pairwise(begins):
            assert rows[b - 1][0] - rows[a][0] == b - 1 - a
    # 3 simulators of 2 frames, less the steps that only reset: the first segment ends once 100 are reached.
    assert trainer.collector.decisions == sum(map(len, streams))


def test_frames_and_scores_are_those_of_the_simulators(tmp_path: Path) -> None:
    trainer = start(tmp_path / "run", frames=90, prefill_frames=90)
    env = Counting(3, 0)
    env.reset()
    trainer.collector.finished.clear()
    frames, scores = 0, []
    base = (trainer.collector._segment_seed() % 1000) * 1000.0
    env.counter += base
    for _ in range(16):
        *_, info = env.step(np.zeros((3, 2), np.float32))
        frames += int(info["frames"].sum())
        if "episode" in info:
            ended = np.flatnonzero(info["_episode"])
            scores += [(info["episode"]["r"][i], info["episode"]["l"][i], frames) for i in ended]
        trainer.collector.step(trainer.agent, random=True)
    assert trainer.collector.frames == frames
    got = [(s.score, s.frames, s.at_frame) for s in trainer.collector.finished]
    assert got == scores and len(scores) >= 4
    trainer.collector.close()


def test_stored_latents_start_the_sequences_and_are_those_of_filtering_again(trainer: Trainer) -> None:
    stored: dict[tuple[int, int], dict[str, Tensor]] = {}
    model, loss, add, sample = (
        trainer.agent.world_model,
        trainer.agent.loss,
        trainer.replay.add,
        trainer.replay.sample,
    )
    warm = crossing = 0
    index = torch.zeros(0, 2)

    def spy_add(*row: Any) -> None:
        position = trainer.replay.position
        add(*row)
        for i in range(3):
            stored[i, position] = {name: value[i] for name, value in row[5].items()}

    def spy_sample() -> Any:
        nonlocal index, warm
        batch = sample()
        index = batch.index
        for b, (stream, position) in enumerate(index.tolist()):
            assert bool(batch.has_initial[b]) == (position > 0)
            if position > 0:
                warm += 1
                for name, value in stored[stream, position - 1].items():
                    assert torch.equal(batch.initial[name][b], value), (
                        "not the newest latents of the row before"
                    )
        return batch

    def spy_loss(batch: Any, state: Any) -> Any:
        nonlocal crossing
        before = torch.get_rng_state()
        result = loss(batch, state)
        after = torch.get_rng_state()
        torch.set_rng_state(before)
        with torch.no_grad():
            again, _ = model.observe(batch.observation, batch.action, batch.is_first, state)
        torch.set_rng_state(after)
        latents = model.compress(again)
        assert all(torch.equal(value, latents[name]) for name, value in model.compress(result[2]).items())
        crossing += int(batch.is_first[:, 1:].sum())
        for b, (stream, position) in enumerate(index.tolist()):
            for t in range(batch.reward.shape[1]):
                stored[stream, position + t] = {name: value[b, t] for name, value in latents.items()}
        return result

    trainer.replay.add, trainer.replay.sample = spy_add, spy_sample  # type: ignore[assignment, method-assign]
    trainer.agent.loss = spy_loss  # type: ignore[method-assign]
    loop(trainer, StopSignal())
    assert trainer.updates > 20 and warm > 40 and crossing > 20


def test_a_sequence_without_a_state_before_it_starts_afresh(trainer: Trainer) -> None:
    """Whatever `expand` makes of unknown latents does not matter."""
    for _ in range(10):
        trainer.collector.step(trainer.agent, random=True)
    seen = []
    loss = trainer.agent.loss

    def spy(batch: Any, state: Any) -> Any:
        seen.append(batch.is_first[:, 0].clone())
        return loss(batch, state)

    trainer.agent.loss = spy  # type: ignore[method-assign]
    sample = trainer.replay.sample()
    sample.has_initial[:] = torch.tensor([True, False, True, False])
    sample.is_first[:, 0] = torch.tensor([False, False, True, True])
    trainer.replay.sample = lambda: sample  # type: ignore[method-assign]
    trainer.update()
    assert seen[0].tolist() == [False, True, True, True]
    assert sample.is_first[:, 0].tolist() == [False, False, True, True]


def test_the_exploring_policy_starts_each_episode_afresh(trainer: Trainer) -> None:
    """In a first row the collector's state does not depend on what came before."""
    model = trainer.agent.world_model
    for _ in range(20):
        row = trainer.collector._row
        first = torch.from_numpy(row.is_first)
        observation = {name: torch.from_numpy(value) for name, value in row.observation.items()}
        before = torch.get_rng_state()
        trainer.collector.step(trainer.agent, random=True)
        after = torch.get_rng_state()
        torch.set_rng_state(before)
        fresh = model.encode(
            observation, model.initial(3), torch.zeros(3, 2), torch.ones(3, dtype=torch.bool)
        )
        torch.set_rng_state(after)
        filtered = trainer.collector._filter
        assert filtered is not None
        state = filtered.state
        same = (state["deter"] == fresh["deter"]).all(-1)
        assert same.tolist() == first.tolist()


def test_imagined_action_k_leads_from_state_k_to_the_next(trainer: Trainer) -> None:
    """The deterministic part needs no observation: imagined and observed ones must agree, step for step."""
    loop(trainer, StopSignal())
    model = trainer.agent.world_model.requires_grad_(False)
    sample = trainer.replay.sample()
    start = model.encode({name: value[:, 0] for name, value in sample.observation.items()})
    actions = torch.rand(len(sample.reward), 5, 2) * 2 - 1
    asked = []

    def policy(state: Any) -> Tensor:
        asked.append(state)
        return actions[:, len(asked) - 1]

    dream = model.imagine(start, policy, 5)
    assert dream.states.shape == (4, 6) and torch.equal(dream.actions, actions)
    for k in range(5):
        state = dream.states[:, k]
        assert torch.equal(asked[k]["stoch"], state["stoch"]), "the action was chosen in another state"
        # Row k+1 of a filtered sequence: the action that leads to it, whatever is seen there.
        observation = {name: value[:, k] for name, value in sample.observation.items()}
        arrived = model.encode(observation, state, actions[:, k])
        torch.testing.assert_close(dream.states["deter"][:, k + 1], arrived["deter"])
        assert torch.equal(dream.rewards[:, k], model.reward(dream.states[:, k + 1]))
        assert torch.equal(dream.continues[:, k], model.cont(dream.states[:, k + 1]))
        wrong = model.encode(observation, state, actions[:, (k + 1) % 5])
        assert not torch.allclose(arrived["deter"], wrong["deter"])


def test_all_costs_count_at_todays_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every positive reward has had a cost of twice itself; the costs grow over half the run."""
    info = TinyEnv.info

    def costly(env: TinyEnv, reward: np.ndarray, *ends: np.ndarray) -> dict[str, Any]:
        return {**info(env, reward, *ends), "cost": 2 * np.maximum(reward, 0).astype(np.float32)}

    monkeypatch.setattr(TinyEnv, "info", costly)
    trainer = start(tmp_path / "run", prefill_frames=48, cost_ramp=0.5)
    sample, loss = trainer.replay.sample, trainer.agent.loss
    stored, shares = [], []

    def sampled() -> Any:
        stored.append(sample())
        return stored[-1]

    def seen(batch: Any, state: Any) -> Any:
        rows = stored[-1]
        np.testing.assert_array_equal(rows.cost, 2 * rows.reward.clamp(min=0))
        shares.append(min(1.0, 2 * trainer.collector.frames / trainer.config.trainer.frames))
        np.testing.assert_allclose(batch.reward, rows.reward + (1 - shares[-1]) * rows.cost, rtol=1e-6)
        return loss(batch, state)

    monkeypatch.setattr(trainer.replay, "sample", sampled)
    monkeypatch.setattr(trainer.agent, "loss", seen)
    loop(trainer, StopSignal())
    trainer.collector.close()
    assert min(shares) < 0.9 and shares[-1] == 1.0
    assert any(bool(rows.cost.any()) for rows in stored)


def test_without_a_ramp_rows_do_not_tell_of_costs(trainer: Trainer) -> None:
    loop(trainer, StopSignal())
    rows = trainer.replay.sample()
    assert rows.cost is None and rows.reward_at(0.3) is rows.reward
