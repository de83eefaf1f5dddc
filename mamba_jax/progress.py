"""What a person sees of a run: a bar in a terminal, a line every half minute elsewhere."""

import math
import sys
import time
from collections import deque
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from mamba_jax.log import Record

LINE_SECONDS = 30.0
RATE_RECORDS = 20


class Reporter:
    """Shows the progress of a run in environment steps.

    In a terminal a bar that is redrawn; elsewhere lines: the first two records, one every half minute, and the last.
    """

    def __init__(self, console: Console | None = None):
        """Writes to standard output, or to `console`."""
        self.console = console or Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self.progress: Progress | None = None
        self.total = 0
        self.recent: deque[tuple[float, int]] = deque(maxlen=RATE_RECORDS)
        self.lines = 0
        self.last_line = -math.inf
        self.evaluation: float | None = None

    def message(self, text: str) -> None:
        """Shows a sentence."""
        self.console.print(text, markup=False)

    def start(self, total: int, done: int) -> None:
        """Begins to show progress: `done` of `total` environment steps so far."""
        self.total = total
        self.recent.append((time.monotonic(), done))
        if self.console.is_terminal:
            columns = (BarColumn(bar_width=20), TextColumn("{task.percentage:>5.1f}% {task.description}"))
            self.progress = Progress(*columns, console=self.console)
            self.task = self.progress.add_task("", total=total, completed=min(done, total))
            self.progress.start()

    def update(self, record: Record) -> None:
        """Shows the record of a round."""
        now = time.monotonic()
        self.recent.append((now, record["env_steps"]))
        self.evaluation = record.get("eval/return_mean", self.evaluation)
        pace, metrics = self.pace(record["env_steps"]), self.metrics(record)
        if self.progress is not None:
            completed = min(record["env_steps"], self.total)
            self.progress.update(self.task, completed=completed, description=f"{pace}\n{metrics}")
        elif self.lines < 2 or now - self.last_line >= LINE_SECONDS or record["env_steps"] >= self.total:
            self.lines, self.last_line = self.lines + 1, now
            self.message(f"{min(100, 100 * record['env_steps'] / self.total):5.1f}% {pace} | {metrics}")

    def stop(self) -> None:
        """Ends the display; the last state of the bar stays."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def pace(self, env_steps: int) -> str:
        """Environment steps, their rate over the last rounds and the time left."""
        (start, first), (end, last) = self.recent[0], self.recent[-1]
        rate = (last - first) / max(end - start, 1e-9)
        parts = [f"{env_steps:,}/{self.total:,} steps"]
        if rate > 0:
            left = timedelta(seconds=round(max(self.total - last, 0) / rate))
            parts += [f"{rate:,.0f} steps/s", f"{left} left"]
        return " | ".join(parts)

    def metrics(self, record: Record) -> str:
        """Updates, returns in training and in the newest evaluation, and the loss."""
        parts = [f"{record['updates']:,} updates"]
        if "train/collect/return" in record:
            parts += [f"return {number(record['train/collect/return'])}"]
        if self.evaluation is not None:
            parts += [f"evaluation {number(self.evaluation)}"]
        name = displayed_loss(record)
        if name is not None:
            label = name.removeprefix("train/").replace("/", " ").replace("_", " ")
            parts += [f"{label} {number(record[name])}"]
        return " | ".join(parts)


def displayed_loss(record: Record) -> str | None:
    """The name of the loss to show: the world model's, else the first."""
    losses = [name for name in record if name.startswith("train/") and name.endswith("loss")]
    first = [name for name in losses if name == "train/world_model/loss"]
    return (first + losses)[0] if losses else None


def number(value: Any) -> str:
    """A number in few characters; a dash where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"
