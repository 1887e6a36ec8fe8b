"""Time dreams beside the arithmetic the machine can do: imagined steps/s, and fitness evaluations/s in them.

python benchmarks/dream.py --config configs/car_racing.yaml [--batches 16 256 4096] [--json PATH]

Steps count each of the dreams of a batch, policy and heads included. The share compares the matrix products
a step needs with what one large fp32 product reaches in the same run.
"""

from pathlib import Path

import bench
import torch
from rich.console import Console

from agent.behaviour.actor_critic import ActorCriticConfig
from agent.behaviour.evolution import ControllerConfig, Population, dream_fitness
from agent.dreamer import DreamerConfig
from agent.world_model.interface import State, WorldModel
from agent.world_model.lstm import LSTMConfig
from train.online.config import OnlineConfig
from train.run.options import build

ACTIONS = 3
SHAPES = {"image": (3, 64, 64)}


def starts(model: WorldModel, count: int, device: torch.device) -> State:
    """N states after one random picture each; few pictures, repeated."""
    image = torch.randint(0, 256, (16, *SHAPES["image"]), dtype=torch.uint8, device=device)
    states = model.encode({"image": image})
    return states[torch.arange(count, device=device) % 16]


@torch.no_grad()
def dreams(
    config: DreamerConfig, batch: int, length: int, repeats: int, rate: float, device: torch.device
) -> dict[str, float]:
    """`length` imagined steps of `batch` dreams under the actor, rewards and continues included."""
    agent = config.build(SHAPES, ACTIONS).to(device)
    model, actor = agent.world_model, agent.actor_critic
    first = starts(model, batch, device)

    def work() -> None:
        model.imagine(first, lambda state: actor.policy(model.features(state)).sample(), length)

    return bench.measure(work, batch * length, repeats, rate, device)


@torch.no_grad()
def fitness(
    config: LSTMConfig,
    population: int,
    each: int,
    length: int,
    repeats: int,
    rate: float,
    device: torch.device,
) -> dict[str, float]:
    """Evaluations of linear controllers in the LSTM's dream; one is the mean of `each` dreams."""
    model = config.build(SHAPES, ACTIONS).to(device)
    controller = ControllerConfig(inputs="observed_memory").build(model).to(device)
    genomes = 0.1 * torch.randn(population, controller.genome.numel(), device=device)
    first = starts(model, each, device)

    def work() -> None:
        dream_fitness(model, Population(controller, genomes), first, length)

    return bench.measure(work, population, repeats, rate, device)


def main() -> None:
    """Measure and print."""
    parser = bench.parser(__doc__)
    bench.option(parser, "--config", Path("configs/car_racing.yaml"), "config of the RSSM")
    bench.option(parser, "--batches", [16, 256, 4096], "dreams at once")
    bench.option(parser, "--length", 15, "steps of a dream")
    bench.option(parser, "--repeats", 5, "runs timed, after three that are not")
    bench.option(parser, "--population", 64, "controllers")
    bench.option(parser, "--dreams", 16, "dreams of each controller")
    bench.option(parser, "--fitness-length", 100, "steps of these dreams")
    bench.add_machine(parser)
    args = parser.parse_args()

    device, rate, result = bench.begin(args)
    rssm = build(OnlineConfig, args.config).agent
    lstm = LSTMConfig()
    agents = {"rssm": rssm, "lstm": DreamerConfig(world_model=lstm, behaviour=ActorCriticConfig())}
    if isinstance(rssm.behaviour, ActorCriticConfig):
        agents["lstm"].behaviour = rssm.behaviour
    result["length"] = args.length
    table = bench.table(
        f"dreams, {result['threads']} threads, fp32 matrix rate {rate:.0f} GFLOP/s",
        *("what", "per second", "each [MFLOP]", "GFLOP/s", "share", "min-max [s]"),
    )

    def add(key: str, text: str, figures: dict[str, float]) -> None:
        result[key] = figures
        table.add_row(
            text,
            f"{figures['per_second']:,.{0 if figures['per_second'] >= 100 else 1}f}",
            f"{figures['mflop_each']:.2f}",
            f"{figures['gflop_per_second']:.1f}",
            f"{figures['share_of_fp32_matrix_rate']:.0%}",
            f"{figures['seconds_min']:.3f}-{figures['seconds_max']:.3f}",
        )

    for name, config in agents.items():
        for batch in args.batches:
            figures = dreams(config, batch, args.length, args.repeats, rate, device)
            add(f"{name}_steps_batch_{batch}", f"{name} steps, batch {batch}", figures)
    figures = fitness(lstm, args.population, args.dreams, args.fitness_length, args.repeats, rate, device)
    sizes = {"population": args.population, "dreams_each": args.dreams, "fitness_length": args.fitness_length}
    result |= sizes
    text = "lstm fitness, {population} controllers x {dreams_each} dreams x {fitness_length} steps"
    add("lstm_fitness", text.format(**sizes), figures)
    Console().print(table)
    bench.write(args.json, result)


if __name__ == "__main__":
    main()
