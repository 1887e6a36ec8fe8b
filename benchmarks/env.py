"""Time CarRacing for training beside Gymnasium's own loop on one core and EnvPool without anything around it.

    python benchmarks/env.py [--frames 1600] [--repeats 5] [--json PATH]

All are driven in turn, again and again, so that other work on the machine slows all alike; medians count.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable

import bench
import gymnasium
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from envs.car_racing.env import CarRacingConfig, make_car_racing
from envs.car_racing.observation import CarRacingObservation, native_action
from envs.car_racing.simulators import EnvPoolSimulators

TARGET = 8.0
"""How many times as many frames a second as Gymnasium's loop are aimed at."""
PLAIN, RAW, SKIPPING = "Gymnasium", "EnvPool", "ours on Gymnasium, repeat 4"

Driver = Callable[[int], int]
"""Drives about as many frames as its argument and returns how many it was."""


def gently(random: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Actions (count, 2) that keep most cars near the road."""
    return random.uniform([-0.3, -0.2], [0.3, 0.5], (count, 2)).astype(np.float32)


def plain_loop() -> Driver:
    """Gymnasium's environment, stepped as its documentation shows."""
    env = gymnasium.make("CarRacing-v3")
    random = np.random.default_rng(0)
    env.reset(seed=0)

    def drive(frames: int) -> int:
        for _ in range(frames):
            _, _, terminated, truncated, _ = env.step(native_action(gently(random, 1))[0])
            if terminated or truncated:
                env.reset()
        return frames

    return drive


def raw_pool(config: CarRacingConfig) -> Driver:
    """EnvPool without any use of its pictures: the upper limit."""
    pool = EnvPoolSimulators(range(100, 100 + config.num_envs), config.max_frames, config.threads)
    random = np.random.default_rng(0)
    pool.reset(np.ones(config.num_envs, bool))
    live = np.ones(config.num_envs, bool)

    def drive(frames: int) -> int:
        steps = frames // config.num_envs
        for _ in range(steps):
            pool.step(native_action(gently(random, config.num_envs)), live, True)
        return steps * config.num_envs

    return drive


def ours(config: CarRacingConfig) -> Driver:
    """The training environment, end to end."""
    env = make_car_racing(config, 100)
    random = np.random.default_rng(0)
    env.reset()

    def drive(frames: int) -> int:
        done = 0
        while done < frames:
            done += int(env.step(gently(random, config.num_envs))[4]["frames"].sum())
        return done

    return drive


def picture_seconds(config: CarRacingConfig) -> float:
    """Seconds one decision's pictures take to cut and resize, the median of 20."""
    view = CarRacingObservation(config.image_size, config.crop_hud, config.instruments)
    frames = np.random.default_rng(0).integers(0, 256, (config.num_envs, 96, 96, 3), dtype=np.uint8)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        view(frames)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = bench.parser(__doc__)
    bench.option(parser, "--frames", 1600, "frames a repeat")
    bench.option(parser, "--repeats", 5, "repeats, after one that does not count")
    args = parser.parse_args()

    configs = {k: CarRacingConfig(backend="envpool", num_envs=16, action_repeat=k) for k in (4, 1)}
    names = {k: f"ours, repeat {k}" for k in configs}
    drivers = {PLAIN: plain_loop(), RAW: raw_pool(configs[4])}
    drivers |= {names[k]: ours(config) for k, config in configs.items()}
    drivers[SKIPPING] = ours(CarRacingConfig(backend="gymnasium", num_envs=1))
    rates: dict[str, list[float]] = {name: [] for name in drivers}
    cpu_rates: dict[str, list[float]] = {name: [] for name in drivers}
    pictures = []
    for repeat in range(args.repeats + 1):
        for name, drive in drivers.items():
            # The slow ones are driven less: they would take most of the time.
            frames = args.frames // 8 if name in (PLAIN, SKIPPING) else args.frames
            start, cpu_start = time.perf_counter(), time.process_time()
            done = drive(frames)
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
            if repeat:
                rates[name].append(done / seconds)
                cpu_rates[name].append(done / cpu_seconds)
        pictures.append(picture_seconds(configs[4]))
    median = {name: statistics.median(rate) for name, rate in rates.items()}
    # Seconds of all threads together: tells even on a busy machine what a frame costs.
    cpu_median = {name: statistics.median(rate) for name, rate in cpu_rates.items()}
    # Share of a decision's time: N x action repeat frames at the measured rate.
    share = {
        name: statistics.median(pictures) * median[name] / (config.num_envs * config.action_repeat)
        for config, name in zip(configs.values(), names.values(), strict=True)
    }

    result = {
        "frames_per_second": median,
        "frames_per_second_all": rates,
        "frames_per_cpu_second": cpu_median,
        "times_gymnasium": {name: median[name] / median[PLAIN] for name in names.values()},
        "share_of_envpool_alone": {name: median[name] / median[RAW] for name in names.values()},
        "share_of_time_resizing": share,
        "target_times_gymnasium": TARGET,
        "simulators": configs[4].num_envs,
        "threads": configs[4].threads,
        "cores": os.cpu_count(),
        "machine": platform.processor() or platform.machine(),
    }
    table = bench.table(
        f"CarRacing-v3, 16 simulators, {configs[4].threads} threads, target {TARGET:g}x Gymnasium",
        *("", "frames/s", "min-max", "x Gymnasium", "of EnvPool", "resizing", "frames/CPU s"),
    )
    for name, rate in rates.items():
        table.add_row(
            name,
            f"{median[name]:.0f}",
            f"{min(rate):.0f}-{max(rate):.0f}",
            f"{median[name] / median[PLAIN]:.1f}",
            f"{median[name] / median[RAW]:.0%}",
            f"{share[name]:.1%}" if name in share else "",
            f"{cpu_median[name]:.0f}",
        )
    Console().print(table)
    bench.write(args.json, result)


if __name__ == "__main__":
    main()
