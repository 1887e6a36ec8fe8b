import io

from rich.console import Console

from train.run.progress import Progress, duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_come_now_and_then_and_say_all() -> None:
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, soft_wrap=True)
    with Progress("train", 1000, rates=("updates",), interval=10, console=console, clock=clock) as progress:
        for second in range(1, 26):
            clock.now += 1
            progress.update(20 * second, {"updates": 3 * second, "loss/model": 12.3456, "last": "no"})
        progress.say("saved [here]")
    lines = out.getvalue().splitlines()
    assert lines[1] == (
        "train: frames 400/1,000 (40%), 20/s | updates 60, 3.00/s | loss/model 12.35 | last no"
        " | elapsed 0:00:20 | left 0:00:30"
    )
    assert len(lines) == 4 and lines[2] == "saved [here]" and "(50%)" in lines[3]


def test_a_resumed_job_counts_its_rate_from_where_it_went_on() -> None:
    clock = Clock()
    progress = Progress("train", 1000, done=500, console=Console(file=io.StringIO()), clock=clock)
    clock.now += 10
    progress.update(600)
    assert progress.rate("frames") == 10.0 and "left 0:00:40" in progress.line()


def test_the_rate_is_that_of_the_last_minute() -> None:
    clock = Clock()
    progress = Progress("collect", None, unit="episodes", console=Console(file=io.StringIO()), clock=clock)
    for second in range(1, 301):
        clock.now += 1
        progress.update(second if second <= 200 else 200 + 5 * (second - 200))
    assert progress.rate("episodes") == 5.0
    assert progress.line() == "collect: episodes 700, 5.00/s | elapsed 0:05:00"


def test_a_terminal_gets_a_panel_that_keeps_other_lines() -> None:
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    with Progress("evaluate", 10, unit="episodes", console=console, clock=clock) as progress:
        clock.now += 1
        progress.update(4, {"mean": 812.0})
        progress.say("episode 4: 905")
    text = out.getvalue()
    assert "evaluate" in text and "4/10 (40%)" in text and "812" in text and "episode 4: 905" in text


def test_durations() -> None:
    assert [duration(s) for s in (0, 61.9, 3600, 360_000)] == ["0:00:00", "0:01:01", "1:00:00", "100:00:00"]
