"""Plan in a world model's dreams on the official CarRacing-v3, and draw the imagined futures."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.behaviour.actor_critic import ActorCritic
from agent.behaviour.planner import Plan, Planner, PlannerConfig
from agent.world_model.interface import State
from train.drive.agents import Trained, load_agent
from train.drive.drivers import FilteredDriver, agent_driver
from train.drive.environments import require_car_racing
from train.drive.open_loop import to_pixels
from train.drive.rollout import drive_tracks, held_out_seeds
from train.look.evaluate import Scores, score_statistics
from train.look.report import write_result
from train.pictures.plans import PlannedDecision, draw_decisions, rank
from train.run.errors import explain_os_errors
from train.run.options import validate
from train.run.progress import Progress

_DISCOUNT = 0.99  # of a behaviour that has no critic


class PlanningDriver:
    """Drives by planning; a `train.drive.drivers.Driver`. Records the first simulator's plans, to be drawn.

    Args:
        trained: world model and policy.
        planner: of that world model.
        film: decisions that are recorded, from the first on; those of one episode at most.
    """

    def __init__(self, trained: Trained, planner: Planner, film: int) -> None:
        self.recorded: list[PlannedDecision] = []
        self.seconds = 0.0
        """Time spent on planning, over all simulators [s]."""
        self._model, self._device, self._film = trained.agent.world_model, trained.device, film
        self._planner = planner
        self._driver = FilteredDriver(self._model, self._choose, trained.device)
        self._image: NDArray[np.uint8] | None = None
        self._over = False

    def reset(self, count: int) -> None:
        """See `Driver`."""
        self._driver.reset(count)

    def act(
        self, observation: Mapping[str, NDArray[Any]], is_first: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """See `Driver`."""
        self._over |= bool(self.recorded) and bool(is_first[0])
        self._image = observation["image"][0].copy()
        return self._driver.act(observation, is_first)

    def _choose(self, state: State, is_first: Tensor) -> Tensor:
        began = time.perf_counter()
        plan = self._planner.plan(state, is_first)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds += time.perf_counter() - began
        if len(self.recorded) < self._film and not self._over:
            self.recorded.append(self._record(plan))
        return plan.action

    @torch.no_grad()
    def _record(self, plan: Plan) -> PlannedDecision:
        """What is drawn of the first simulator's plan."""
        assert self._image is not None
        shown = rank(plan.returns[0].cpu().numpy())
        horizon = plan.actions.shape[2]
        # The present, and steps up to the horizon.
        steps = np.unique(np.linspace(0, horizon, 6).round().astype(int))
        rows = torch.from_numpy(shown).to(self._device)
        chosen = plan.states[0][rows][:, torch.from_numpy(steps).to(self._device)]
        pictures = to_pixels(self._model.decode(chosen)["image"])
        return PlannedDecision(
            seen=self._image,
            futures=pictures,
            steps=steps,
            shown=shown,
            returns=plan.returns[0].cpu().numpy(),
            by_policy=plan.by_policy,
            actions=plan.actions[0].cpu().numpy(),
            action=plan.action[0].cpu().numpy(),
        )


@dataclass
class PlanResult:
    """The result of planning; what `--json` holds."""

    scores: Scores
    planner: dict[str, Any] | None
    """The planner's config; null where the policy drove alone."""
    policy: str
    milliseconds_per_decision: float
    """Time to plan one decision of one car [ms], while `at_once` cars are planned for together."""
    decisions: int
    at_once: int
    """Cars at the start; towards the end there are fewer."""
    device: str
    threads: int


def untrained_policy(trained: Trained) -> None:
    """Replace the behaviour by one as it is before the first update; the world model stays.

    torch's random numbers, which draw it, must be seeded by the caller.
    """
    agent = trained.agent
    agent.behaviour = trained.config.agent.behaviour.build(agent.world_model).to(trained.device).eval()


def plan(
    run: Path,
    config: PlannerConfig | None,
    policy: Literal["trained", "untrained"] = "trained",
    episodes: int = 1,
    first_seed: int = 1_000_000,
    json_path: Path | None = None,
    output: Path | None = None,
    film: int = 100,
) -> PlanResult:
    """Drive held-out tracks by planning with the world model of `run`, print scores, draw the plans.

    Args:
        run: folder of the run with world model and policy.
        config: the planner; None lets the policy drive alone, to compare with.
        policy: which one the planner's prior is, and what drives alone.
        episodes: tracks.
        first_seed: of the tracks, 1,000,000 or more.
        json_path: where to write the result.
        output: folder for `plan.mp4` and `plan.png`; the run's pictures if None.
        film: decisions of the first track that are drawn; 0 draws nothing.

    Raises:
        DreamdriveError: no run, seeds that training may have used, or a planner that does not fit.
    """
    seeds = held_out_seeds(episodes, first_seed)
    if json_path is not None:
        with explain_os_errors("cannot make the folder", json_path.parent):
            json_path.parent.mkdir(parents=True, exist_ok=True)
    trained = load_agent(run)
    env = require_car_racing(trained.config.env, f"plan {run}")
    torch.manual_seed(first_seed)
    if policy == "untrained":
        untrained_policy(trained)
    behaviour = trained.agent.behaviour
    discount, discrete = _DISCOUNT, False
    if isinstance(behaviour, ActorCritic):
        discount, discrete = behaviour.discount, behaviour.config.actions == "discrete"
    planning = None
    if config is not None:
        planner = config.build(trained.agent.world_model, behaviour.policy, discount, discrete)
        planning = PlanningDriver(trained, planner, film)
    name = f"{policy} policy alone" if config is None else f"{config.method}, {policy} policy"
    with Progress(f"planning with {run} ({name})", episodes, "episodes") as progress:
        began = time.monotonic()
        scores, frames = drive_tracks(env, planning or agent_driver(trained), seeds, progress)
        progress.say(f"drove for {time.monotonic() - began:.0f} s")
    repeat = env.action_repeat
    decisions = sum(-(-length // repeat) for length in frames)
    result = PlanResult(
        scores=score_statistics(str(run), trained.frames, first_seed, scores, frames),
        planner=None if config is None else config.model_dump(),
        policy=policy,
        milliseconds_per_decision=0.0 if planning is None else 1e3 * planning.seconds / decisions,
        decisions=decisions,
        at_once=min(8, episodes),
        device=str(trained.device),
        threads=torch.get_num_threads(),
    )
    write_result(json_path, result)
    print(f"{name}: {result.milliseconds_per_decision:.1f} ms a decision, {result.scores.line()}")
    if planning is not None and planning.recorded:
        folder = output or trained.run.pictures
        for path in draw_decisions(folder, planning.recorded, name, 50 / repeat):
            print(path)
    return result


def planner_config(method: str, options: Mapping[str, Any]) -> PlannerConfig | None:
    """The config of a planner, or None for `policy`, which plans nothing; options that are None are left out.

    Raises `DreamdriveError` for options that do not fit each other.
    """
    if method == "policy":
        return None
    given = {name: value for name, value in options.items() if value is not None}
    if "samples" in given and "elites" not in given:
        # As large a share as by default.
        usual = PlannerConfig()
        given["elites"] = max(2, given["samples"] * usual.elites // usual.samples)
    return validate(PlannerConfig, {"method": method, **given}, "planner")
