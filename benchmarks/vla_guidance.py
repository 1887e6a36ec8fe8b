"""Time guidance: milliseconds of a decision, and decisions/s, with 1, 4 and 16 chunks to choose from.

python benchmarks/vla_guidance.py [--config configs/car_racing.yaml] [--candidates 1 4 16] [--json PATH]

One candidate is the policy alone. A decision is what the policy and the world model do for it, on the average
over a chunk: every decision is filtered, chunks are proposed and imagined once every `execute` decisions.
Sizes are the configs'; weights are random, and so are the sentences' embeddings, which are cached anyway.
"""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import bench
import torch
from rich.console import Console
from torch import Tensor

from agent.behaviour.vla.interface import IMAGE, STATE, TASK, ChunkPolicy
from agent.world_model.ensemble import DisagreementConfig
from agent.world_model.probe import Probe, ProbeConfig
from train.language.hindsight import CAR_RACING_SPEEDS, Labels
from train.online.config import OnlineConfig
from train.run.options import build
from train.vla.chunk_scoring import ChunkScoringConfig
from train.vla.config import VLATrainConfig
from train.vla.features import FeatureExtractor, FeaturePolicy
from train.vla.filtered_episodes import probe_names
from train.vla.guidance import WorldModelGuidedTrainer
from train.vla.policy import VLAPolicy
from train.vla.probes import DreamProbes

ACTIONS, STATES = 2, 4
SHAPES = {"image": (3, 64, 64)}


def guided(
    agent: OnlineConfig, vla: VLATrainConfig, candidates: int, horizon: int, device: torch.device
) -> WorldModelGuidedTrainer:
    """A policy and a world model of these sizes, and gauges, all untrained."""
    whole = agent.agent.build(SHAPES, ACTIONS).to(device).eval()
    model = whole.world_model
    sizes = {"action_size": ACTIONS, "state_size": STATES, "feature_size": model.feature_size}
    text = torch.randn(1, vla.policy.text_size, device=device)

    def encoder(texts: Sequence[str]) -> Tensor:
        return text.expand(len(texts), -1)

    policy = VLAPolicy(vla.policy.model_copy(update=sizes), encoder).to(device).eval()
    probe = Probe(ProbeConfig(), model.feature_size, probe_names(STATES))
    gauges = DreamProbes(DisagreementConfig().build(model), probe.eval(), 1.0, {}).to(device)
    driver: ChunkPolicy = policy
    if policy.config.vision == "features":
        driver = FeaturePolicy(policy, FeatureExtractor(model, SHAPES, device))
    return WorldModelGuidedTrainer(
        driver,
        model,
        whole.actor_critic,
        candidates,
        ChunkScoringConfig(horizon=horizon),
        gauges,
        CAR_RACING_SPEEDS,
        lambda _: Labels("slow", "left"),
    )


def decision_times(
    trainer: WorldModelGuidedTrainer, cars: int, chunks: int, device: torch.device
) -> list[float]:
    """Mean time of a decision for `cars` together in each of some chunks [s], the first two left out."""
    execute = trainer.execute
    assert execute is not None
    picture = torch.rand(cars, *SHAPES["image"], device=device)
    batch = {IMAGE: picture, STATE: torch.zeros(cars, STATES, device=device), TASK: ["on the left"] * cars}
    times = []
    for _ in range(chunks + 2):
        began = time.perf_counter()
        for _ in range(execute):
            trainer.select_action(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append((time.perf_counter() - began) / execute)
    return times[2:]


def main() -> None:
    """Measure and print."""
    parser = bench.parser(__doc__)
    bench.option(parser, "--config", Path("configs/car_racing.yaml"), "config of world model and actor")
    bench.option(parser, "--vla", Path("configs/vla_car_racing.yaml"), "config of the policy")
    bench.option(parser, "--candidates", [1, 4, 16], "chunks, K")
    bench.option(parser, "--horizon", 15, "decisions imagined")
    bench.option(parser, "--cars", 1, "driven at once")
    bench.option(parser, "--chunks", 20, "chunks timed")
    bench.add_machine(parser)
    args = parser.parse_args()

    device, _, result = bench.begin(args)
    agent, vla = build(OnlineConfig, args.config), build(VLATrainConfig, args.vla)
    result |= {"vla": str(args.vla), "cars": args.cars, "horizon": args.horizon}
    result["execute"] = vla.policy.execute
    table = bench.table(
        f"guidance, {result['threads']} threads, {args.cars} cars, horizon {args.horizon}",
        *("candidates", "ms a decision", "decisions/s", "imagined steps/s"),
        names=0,
    )
    for candidates in args.candidates:
        trainer = guided(agent, vla, candidates, args.horizon, device)
        times = decision_times(trainer, args.cars, args.chunks, device)
        median = statistics.median(times)
        steps = candidates * args.horizon / vla.policy.execute if candidates > 1 else 0.0
        figures = {
            "ms_a_decision_median": 1e3 * median,
            "ms_a_decision_min": 1e3 * min(times),
            "ms_a_decision_max": 1e3 * max(times),
            "decisions_per_second": args.cars / median,
            "imagined_steps_per_second": args.cars * steps / median,
        }
        result[f"candidates_{candidates}"] = figures
        table.add_row(
            str(candidates),
            f"{figures['ms_a_decision_median']:.2f}",
            f"{figures['decisions_per_second']:,.0f}",
            f"{figures['imagined_steps_per_second']:,.0f}",
        )
    Console().print(table)
    bench.write(args.json, result)


if __name__ == "__main__":
    main()
