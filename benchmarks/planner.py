"""Time planning: decisions/s of each planner at some numbers of samples and horizons.

python benchmarks/planner.py --config configs/car_racing.yaml [--samples 64 256] [--horizons 8 15]

One decision plans for one car, unless --cars says how many are planned for at once; all of them count. The
share compares the matrix products a decision needs with what one large fp32 product reaches in the same run.
"""

from pathlib import Path

import bench
import torch
from dream import ACTIONS, SHAPES, starts
from rich.console import Console

from agent.behaviour.actor_critic import ActorCritic
from agent.behaviour.planner import PlannerConfig
from agent.dreamer import DreamerConfig
from train.online.config import OnlineConfig
from train.run.options import build


def decisions(
    agent: DreamerConfig, planner: PlannerConfig, cars: int, repeats: int, rate: float, device: torch.device
) -> dict[str, float]:
    """Plan for `cars` at once, again and again, each from its last plan."""
    whole = agent.build(SHAPES, ACTIONS).to(device).eval()
    behaviour = whole.actor_critic
    assert isinstance(behaviour, ActorCritic)
    planning = planner.build(whole.world_model, behaviour.policy, behaviour.discount)
    with torch.no_grad():
        state = starts(whole.world_model, cars, device)
    going_on = torch.zeros(cars, dtype=torch.bool, device=device)
    return bench.measure(lambda: planning.plan(state, going_on), cars, repeats, rate, device)


def main() -> None:
    """Measure and print."""
    parser = bench.parser(__doc__)
    bench.option(parser, "--config", Path("configs/car_racing.yaml"), "config of world model and policy")
    bench.option(parser, "--samples", [64, 256], "candidates")
    bench.option(parser, "--horizons", [8, 15], "decisions imagined")
    bench.option(parser, "--cars", 1, "planned for at once")
    bench.option(parser, "--repeats", 5, "runs timed, after three that are not")
    bench.add_machine(parser)
    args = parser.parse_args()

    device, rate, result = bench.begin(args)
    result["cars"] = args.cars
    agent = build(OnlineConfig, args.config).agent
    table = bench.table(
        f"planning, {result['threads']} threads, fp32 matrix rate {rate:.0f} GFLOP/s",
        *("planner", "samples", "horizon", "decisions/s", "ms each", "imagined steps/s", "share"),
    )
    for method in ("shooting", "cem", "mppi"):
        for samples in args.samples:
            for horizon in args.horizons:
                planner = PlannerConfig.model_validate(
                    {"method": method, "samples": samples, "horizon": horizon, "elites": min(12, samples)}
                )
                figures = decisions(agent, planner, args.cars, args.repeats, rate, device)
                iterations = 1 if method == "shooting" else planner.iterations
                figures["imagined_steps_per_second"] = figures["per_second"] * samples * horizon * iterations
                result[f"{method}_samples_{samples}_horizon_{horizon}"] = figures
                table.add_row(
                    method,
                    str(samples),
                    str(horizon),
                    f"{figures['per_second']:.2f}",
                    f"{1e3 / figures['per_second']:.1f}",
                    f"{figures['imagined_steps_per_second']:,.0f}",
                    f"{figures['share_of_fp32_matrix_rate']:.0%}",
                )
    Console().print(table)
    bench.write(args.json, result)


if __name__ == "__main__":
    main()
