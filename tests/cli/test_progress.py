"""What is shown while a run goes on."""

import io

from rich.console import Console

from mamba_jax.progress import Reporter


def record(steps, **more):
    shown = {"train/collect/return": 2.5, "train/behaviour/loss": 9.0, "train/world_model/loss": 7.25}
    return {"env_steps": steps, "updates": steps // 10, **shown, **more}


def show(console, count):
    reporter = Reporter(console)
    reporter.start(1000, 0)
    reporter.update({"env_steps": 0, "updates": 0, "eval/return_mean": 1.5})
    for i in range(1, count + 1):
        reporter.update(record(1000 * i // count))
    reporter.stop()
    return console.file.getvalue()


def test_lines_where_there_is_no_terminal():
    """The first two records and the last, since all come within half a minute."""
    lines = show(Console(file=io.StringIO(), width=300), 10).splitlines()
    assert [line.split()[0] for line in lines] == ["0.0%", "10.0%", "100.0%"]
    assert "0/1,000 steps | 0 updates | evaluation 1.5" in lines[0]
    for part in ("100/1,000 steps", "steps/s", "left", "10 updates", "return 2.5", "world model loss 7.25"):
        assert part in lines[1]


def test_a_bar_in_a_terminal():
    text = show(Console(file=io.StringIO(), width=80, force_terminal=True), 10)
    assert "1,000/1,000 steps" in text and "0:00:00 left" in text and "world model loss 7.25" in text


def test_missing_numbers_are_dashes():
    console = Console(file=io.StringIO(), width=300)
    reporter = Reporter(console)
    reporter.start(10, 0)
    reporter.update({"env_steps": 5, "updates": 1, "train/collect/return": float("nan"), "train/actor/loss": 0.5})
    assert "return - | actor loss 0.5" in console.file.getvalue()
