"""Baselines from stable-baselines3: the adapter exactly, and the commands end to end, as small as can be."""

import importlib.util
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tensordict import TensorDict

from agent.world_model.interface import State
from envs.car_racing.env import CarRacing, CarRacingConfig, make_car_racing
from envs.dream import DreamConfig, DreamVectorEnv
from tests.agent.tiny import LinearWorld
from train.baselines.saved_model import algorithm_state, load_algorithm
from train.cli import main
from train.run.checkpoint import load_checkpoint, save_checkpoint
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.run.tracking import read_metrics

pytest.importorskip("stable_baselines3", reason="the extra baselines is not installed")

SHIPPED = Path(__file__).parents[3] / "pretrained" / "car_racing"
PPO = ["--algo", "ppo", "--algo.steps", "8", "--algo.batch_size", "16"]
PPO += ["--algo.epochs", "1", "--algo.units", "16"]
SAC = ["--algo", "sac", "--algo.start", "8", "--algo.batch_size", "8"]
SAC += ["--algo.buffer", "100", "--algo.units", "16"]
SMALL = ["--env.num_envs", "2", "--env.threads", "1", "--threads", "1", "--device", "cpu"]
SHORT = ["--env.max_frames", "24"]


class Counting(LinearWorld):
    """x counts steps; the episode ends where it gets to 3."""

    def imagine_step(self, state: State, action: torch.Tensor) -> State:
        return TensorDict({"x": state["x"] + 1}, batch_size=state.batch_size)

    def cont(self, state: State) -> torch.Tensor:
        return (state["x"][..., 0] < 3).float()

    def reward(self, state: State) -> torch.Tensor:
        return state["x"][..., 0]


def test_the_adapter_resets_in_the_step_that_ends_and_keeps_the_last_observation() -> None:
    from train.baselines.adapter import Adapted

    starts = TensorDict({"x": torch.tensor([[0.0, 0.0]])}, [1])
    env = Adapted(DreamVectorEnv(Counting(), starts, 2, DreamConfig(max_steps=9)), 1, 0.1, 0)
    assert env.reset().tolist() == [[0, 0], [0, 0]]
    seen, ends = [], []
    for _ in range(5):
        observation, reward, done, infos = env.step(np.zeros((2, 2), np.float32))
        seen.append(float(observation[0, 0]))  # type: ignore[call-overload]
        ends.append(bool(done[0]))
        if done[0]:
            assert infos[0]["terminal_observation"].tolist() == [3, 3]
            assert not infos[0]["TimeLimit.truncated"] and reward[0] == pytest.approx(0.3)
    assert seen == [1, 2, 0, 1, 2] and ends == [False, False, True, False, False]
    assert env.finished == [(6.0, 3), (6.0, 3)] and env.frames == 0


def test_the_adapter_tells_a_time_limit_from_an_end() -> None:
    from train.baselines.adapter import Adapted

    starts = TensorDict({"x": torch.tensor([[0.0, 0.0]])}, [1])
    env = Adapted(DreamVectorEnv(Counting(), starts, 1, DreamConfig(max_steps=2)), 1, 1.0, 0)
    env.reset()
    env.step(np.zeros((1, 2), np.float32))
    _, _, done, infos = env.step(np.zeros((1, 2), np.float32))
    assert done[0] and infos[0]["TimeLimit.truncated"]


def test_pictures_are_stacked_and_do_not_reach_into_the_episode_before() -> None:
    from train.baselines.adapter import Stack

    stack = Stack(3)
    pictures = [np.full((2, 1, 1, 1), 10 * t, np.uint8) + np.array([0, 1], np.uint8)[:, None, None, None]
                for t in range(4)]  # fmt: skip
    assert stack.push(pictures[0])[:, :, 0, 0].tolist() == [[0, 0, 0], [1, 1, 1]]
    stack.push(pictures[1])
    assert stack.push(pictures[2])[:, :, 0, 0].tolist() == [[0, 10, 20], [1, 11, 21]]
    stack.push(pictures[3])
    restarted = stack.restart(pictures[3], np.array([True, False]))
    assert restarted[:, :, 0, 0].tolist() == [[30, 30, 30], [11, 21, 31]]


def test_car_racing_loses_no_step_to_a_reset() -> None:
    from train.baselines.adapter import Adapted

    config = CarRacingConfig(num_envs=2, max_frames=12, image_size=36, threads=1, backend="gymnasium")
    env = Adapted(make_car_racing(config, 0), 2, 1.0, None)
    first = env.reset()
    assert first.shape == (2, 6, 36, 36) and np.array_equal(first[:, :3], first[:, 3:])
    for step in range(6):
        seen, _, done, infos = env.step(np.zeros((2, 2), np.float32))
        assert done.all() == (step % 3 == 2)
        if done.all():
            assert np.array_equal(seen[:, :3], seen[:, 3:]), "the new episode's first picture alone"  # type: ignore[call-overload]
            assert not np.array_equal(infos[0]["terminal_observation"], seen[0])
            assert infos[0]["TimeLimit.truncated"]
    assert env.frames == 6 * 4 * 2, "a frame was driven by nobody"
    env.close()


def trained(words: list[str], run: Path) -> dict[str, Any]:
    """Train by the command line, and give what the weights' JSON says."""
    assert main(["train", "baseline", *words, *SMALL, "--run", str(run)]) == 0
    assert {path.name for path in run.iterdir()} >= {"config.yaml", "run.json", "weights.safetensors"}
    assert not list(run.rglob("*.zip")) and not list(run.rglob("*.pkl"))
    meta: dict[str, Any] = json.loads((run / "weights.json").read_text())["meta"]
    return meta


def resumed(run: Path, *words: str) -> int:
    """The exit status of going on with a run."""
    return main(["train", "baseline", "--run", str(run), "--resume", *words])


@pytest.mark.parametrize("algo", [PPO, SAC], ids=["ppo", "sac"])
def test_a_run_goes_on_with_its_networks_optimisers_counts_and_replay(
    algo: list[str],
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = runs / "baseline"
    words = [*algo, *SHORT, "--env.image_size", "36", "--stack", "1"]
    before = trained([*words, "--frames", "128"], run)
    first = load_checkpoint(run / "checkpoint.pt")
    rows = read_metrics(run / "metrics.jsonl")
    capsys.readouterr()
    assert resumed(run) == 0 and "128 frames are done" in capsys.readouterr().out
    # Written at once, what was read is the same, random numbers and all.
    with monkeypatch.context() as patch:
        patch.setattr("train.baselines.learner.BaselineLearner.learn", lambda learner, *a: learner.save(a[2]))
        (run / "weights.json").unlink()
        assert resumed(run) == 0 and (run / "weights.json").is_file()
    assert equal(first, load_checkpoint(run / "checkpoint.pt"))
    assert resumed(run, "--frames", "256", "--algo.learning_rate", "1e-4") == 0
    assert "changed on resume: algo.learning_rate: 0.0003 -> 0.0001" in capsys.readouterr().out
    last = load_checkpoint(run / "checkpoint.pt")
    after = json.loads((run / "weights.json").read_text())["meta"]
    assert last["algorithm"]["counts"]["num_timesteps"] == 64 and after["frames"] > before["frames"]
    assert last["algorithm"]["counts"]["_n_updates"] > first["algorithm"]["counts"]["_n_updates"] > 0
    name = "policy.optimizer" if algo is PPO else "actor.optimizer"
    old, new = (state["algorithm"]["parameters"][name] for state in (first, last))
    # Adam has counted on.
    assert new["state"][0]["step"] > old["state"][0]["step"] > 0
    assert old["param_groups"][0]["lr"] == 3e-4 and new["param_groups"][0]["lr"] == 1e-4
    if algo is SAC:
        kept, grown = (state["algorithm"]["replay"]["rows"] for state in (first, last))
        assert len(kept["rewards"]) == 16 and len(grown["rewards"]) == 32
        assert all(torch.equal(grown[key][:16], kept[key]) for key in kept)
        assert (grown["observations"][16:] > 0).any()
        assert not torch.equal(last["algorithm"]["log_ent_coef"], first["algorithm"]["log_ent_coef"])
    told = read_metrics(run / "metrics.jsonl")
    assert told[: len(rows)] == rows and told[-1]["step"] > rows[-1]["step"]
    assert len(Run.open(run).record.starts) == 4


def equal(one: Any, other: Any) -> bool:
    """Whether two checkpoints hold the same values."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(*pair) for pair in zip(one, other, strict=True))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def test_a_full_replay_is_put_back_where_it_was() -> None:
    from stable_baselines3.common.buffers import ReplayBuffer

    class Holder:
        """What of an algorithm concerns the replay."""

        def __init__(self) -> None:
            seen, actions = gymnasium.spaces.Box(0, 255, (2,), np.uint8), gymnasium.spaces.Box(-1, 1, (1,))
            self.replay_buffer = ReplayBuffer(6, seen, actions, "cpu", n_envs=2)
            self.num_timesteps = self._n_updates = self._episode_num = 7

        def get_parameters(self) -> dict[str, Any]:
            return {}

        def set_parameters(self, parameters: dict[str, Any]) -> None:
            assert parameters == {}

        def add(self, step: int) -> None:
            seen, action = np.full((2, 2), step, np.uint8), np.zeros((2, 1), np.float32)
            self.replay_buffer.add(seen, seen + 1, action, np.zeros(2), np.zeros(2), [{}, {}])

    one, other = Holder(), Holder()
    # Three rows of two simulators: the fifth is the second of the next round.
    for step in range(5):
        one.add(step)
    load_algorithm(Path("here"), other, algorithm_state(one))
    for holder in (one, other):
        holder.add(9)
        assert holder.replay_buffer.observations[:, 0, 0].tolist() == [3, 4, 9]
        assert holder.replay_buffer.full and holder.replay_buffer.pos == 0
    state = algorithm_state(one)
    state["replay"]["rows"]["rewards"] = torch.zeros(4, 2)
    with pytest.raises(
        DreamdriveError, match=r"here: does not fit.*replay: rewards float32 \(4, 2\), expected"
    ):
        load_algorithm(Path("here"), other, state)


def test_a_dream_is_gone_on_with_without_the_run_it_came_from(runs: Path, tmp_path: Path) -> None:
    dreaming = tmp_path / "dreaming"
    shutil.copytree(SHIPPED, dreaming)
    run = runs / "dreamt"
    words = [*PPO, *SHORT, "--in-dream", str(dreaming), "--frames", "128", "--dream.observation", "features"]
    before = trained([*words, "--dream.max_steps", "10", "--starts.count", "2", "--starts.context", "3"], run)
    shutil.rmtree(dreaming)
    assert resumed(run, "--frames", "256") == 0
    after = json.loads((run / "weights.json").read_text())["meta"]
    # No real frame was driven again for the beginnings.
    assert after["frames"] == before["frames"]
    assert (before["dreamt_frames"], after["dreamt_frames"]) == (128, 256)


def test_a_run_that_is_stopped_says_how_to_go_on(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs / "stopped"
    step = CarRacing.step

    def interrupted(env: CarRacing, actions: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return step(env, actions)

    with monkeypatch.context() as patch:
        patch.setattr(CarRacing, "step", interrupted)
        words = [*PPO, *SMALL, *SHORT, "--env.image_size", "36", "--frames", "256"]
        assert main(["train", "baseline", *words, "--run", str(run)]) == 0
    assert f"go on with --run {run} --resume" in capsys.readouterr().out
    assert load_checkpoint(run / "checkpoint.pt")["algorithm"]["counts"]["num_timesteps"] == 2
    assert resumed(run, "--frames", "64") == 0
    # 62 more frames are 8 decisions each of two simulators, in whole rollouts.
    assert load_checkpoint(run / "checkpoint.pt")["algorithm"]["counts"]["num_timesteps"] == 18


def test_what_cannot_be_resumed_is_one_line(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs / "baseline"
    trained([*PPO, *SHORT, "--frames", "64", "--env.image_size", "36"], run)
    older = tmp_path / "older"
    shutil.copytree(run, older)
    (older / "checkpoint.pt").unlink()
    cut = tmp_path / "cut"
    shutil.copytree(run, cut)
    (cut / "checkpoint.pt").write_bytes((run / "checkpoint.pt").read_bytes()[:-100])
    strange = tmp_path / "strange"
    shutil.copytree(run, strange)
    saved = load_checkpoint(run / "checkpoint.pt")
    del saved["algorithm"]["parameters"]["policy"]["log_std"]
    save_checkpoint(strange / "checkpoint.pt", saved)
    capsys.readouterr()
    cases = [
        (["--resume"], "needs the run to go on with, --run RUN"),
        (["--run", str(tmp_path / "nowhere"), "--resume"], "no run at"),
        (["--run", str(older), "--resume"], "no checkpoint"),
        (["--run", str(cut), "--resume"], "broken, cut short"),
        (["--run", str(strange), "--resume", "--frames", "128"], "checkpoint.pt: does not fit config.yaml"),
        (["--run", str(run), "--resume", "--seed", "1"], "another seed: 0 -> 1: all that was random"),
        (["--run", str(run), "--resume", "--algo.units", "8"], "weights would not fit"),
        (["--run", str(run), "--resume", "--env.num_envs", "3"], "a stream for each simulator"),
        (["--run", str(run)], "already holds a run"),
    ]
    for arguments, reason in cases:
        assert main(["train", "baseline", *arguments]) == 1, arguments
        told = capsys.readouterr().err
        assert reason in told and told.startswith("dreamdrive: error: ") and told.count("\n") == 1, told
    assert len(Run.open(run).record.starts) == 1


def scored(run: Path, folder: Path) -> dict[str, Any]:
    """The scores of one short official episode."""
    file = folder / "scores.json"
    assert main(["eval", str(run), "--episodes", "1", "--json", str(file)]) == 0
    result: dict[str, Any] = json.loads(file.read_text())
    return result


@pytest.mark.parametrize("algo", [PPO, SAC], ids=["ppo", "sac"])
def test_train_on_the_real_environment_and_eval(algo: list[str], runs: Path, tmp_path: Path) -> None:
    run = runs / "baseline"
    meta = trained([*algo, *SHORT, "--frames", "128", "--env.image_size", "36", "--stack", "2"], run)
    assert meta["observation"]["shape"] == [6, 36, 36] and meta["dreamt_frames"] == 0
    assert 96 <= meta["frames"] <= 128
    rows = read_metrics(run / "metrics.jsonl")
    assert any("score/episode" in row for row in rows) and any("train/actor_loss" in row or
               "train/policy_gradient_loss" in row for row in rows)  # fmt: skip
    assert Run.open(run).record.job == "train-baseline"
    assert Run.open(run).record.mlflow_run_id is not None
    first, again = scored(run, tmp_path), scored(run, tmp_path)
    assert first == again and first["episode_frames"] == [24] and first["trained_frames"] == meta["frames"]


@pytest.mark.slow
@pytest.mark.parametrize("seen", ["image", "features"])
def test_train_in_a_dream_and_eval(seen: str, runs: Path, tmp_path: Path) -> None:
    run = runs / "dreamt"
    words = [*PPO, *SHORT, "--in-dream", str(SHIPPED), "--frames", "256", "--dream.observation", seen]
    meta = trained([*words, "--dream.max_steps", "10", "--starts.count", "2", "--starts.context", "3"], run)
    shipped = json.loads((SHIPPED / "weights.json").read_text())["meta"]["frames"]
    # Two starts of three decisions of four frames were driven, no more.
    assert meta["frames"] == shipped + 24 and meta["dreamt_frames"] == 256
    assert (
        len(list((run / "starts").glob("*.npz"))) == 2 and Run.open(run / "dream").record.job == "train-agent"
    )
    shape = [9, 64, 64] if seen == "image" else [512]
    assert meta["observation"] == {"shape": shape, "kind": seen}
    assert scored(run, tmp_path)["episode_frames"] == [24]


def test_dreams_begin_in_given_episodes(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    words = ["collect", "car-racing", "--episodes", "2", "--output", str(data), "--env.max_frames", "40"]
    assert main([*words, "--env.num_envs", "2", "--env.instruments", "true"]) == 0
    run = runs / "given"
    words = [*PPO, "--in-dream", str(SHIPPED), "--episodes", str(data), "--frames", "128"]
    trained([*words, "--dream.observation", "features", "--starts.where", "any"], run)
    assert not (run / "starts").exists()
    short = tmp_path / "short"
    words = ["collect", "car-racing", "--episodes", "1", "--output", str(short), "--env.max_frames", "4"]
    assert main([*words, "--env.instruments", "true"]) == 0
    words = ["train", "baseline", "--in-dream", str(SHIPPED), "--episodes", str(short)]
    assert main([*words, "--run", str(runs / "bad")]) == 1
    assert "no episode has 5 rows" in capsys.readouterr().err and not (runs / "bad").exists()


def test_mistakes_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(SHIPPED, bare)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "run.json").write_text("{}")
    words = ["train", "baseline"]
    cases = [
        ([*words, "--in-dream", str(tmp_path / "nowhere")], "no run at"),
        ([*words, "--env.image_size", "16"], "expected 36 or more"),
        ([*words, "--algo.bufer", "3"], "--algo.bufer: unknown field"),
        ([*words, "--run", str(taken)], "already holds a run"),
    ]
    for arguments, reason in cases:
        assert main(arguments) == 1, arguments
        told = capsys.readouterr().err
        assert reason in told and told.startswith("dreamdrive: error: ") and told.count("\n") == 1, told
    found = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name == "stable_baselines3" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert main(words) == 1
    told = capsys.readouterr().err
    assert "pip install 'dreamdrive[baselines]'" in told and told.count("\n") == 1
