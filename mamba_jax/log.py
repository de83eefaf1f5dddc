"""Where the numbers of a run go: metrics.jsonl, TensorBoard, Weights & Biases.

A record is a flat dictionary: `round`, `env_steps`, `updates`, `seconds` (of running, compilation left out), then
`train/...` and, where the round ended with an evaluation, `eval/...`. In a run of several seeds a name holds the mean
over seeds, and the same name with `/seeds` the list of their values.
"""

import gzip
import json
import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tensorboardX import SummaryWriter

from mamba_jax.run_folder import FolderError, temporary
from mamba_jax.types import Score

Record = dict[str, Any]


class Logger(Protocol):
    """Takes records until it is closed."""

    def write(self, record: Record) -> None:
        """Takes the record of one round."""

    def close(self) -> None:
        """Takes no more."""


def summarise(prefix: str, metrics: dict[str, Any]) -> Record:
    """Scalars () or one value per seed (seeds,) as plain numbers under `prefix/name`."""
    record: Record = {}
    for name, value in metrics.items():
        values = np.asarray(value, np.float64)
        record[f"{prefix}/{name}"] = float(values.mean())
        if values.ndim:
            record[f"{prefix}/{name}/seeds"] = values.tolist()
    return record


def score_metrics(score: Score) -> dict[str, np.ndarray]:
    """Means, deviation over tasks and `return_1`, `return_2`, ... by sub-episode, each () or (seeds,)."""
    by_sub_episode = np.moveaxis(np.asarray(score.return_per_sub_episode), -1, 0)
    metrics = {"return_mean": np.asarray(score.return_mean), "return_std": np.asarray(score.return_std)}
    return metrics | {f"return_{i}": value for i, value in enumerate(by_sub_episode, 1)}


class MetricsFile:
    """metrics.jsonl; numbers that JSON lacks (NaN, infinity) become null."""

    def __init__(self, path: Path, last_round: int):
        """Opens the file to go on after round `last_round`: lines of later rounds are removed. Raises FolderError."""
        kept = [line for line, record in parsed(path) if record["round"] <= last_round]
        part = temporary(path)
        part.write_text("".join(kept))
        part.replace(path)
        self.file = path.open("a")

    def write(self, record: Record) -> None:
        """Adds a line."""
        self.file.write(json.dumps(without_nan(record), allow_nan=False) + "\n")
        self.file.flush()

    def close(self) -> None:
        """Closes the file."""
        self.file.close()


def read_lines(path: Path) -> list[str]:
    """The complete lines of a metrics file, or of one that was packed with gzip; none where there is no file."""
    packed = path.with_name(path.name + ".gz")
    if path.exists():
        text = path.read_text()
    elif packed.exists():
        text = gzip.decompress(packed.read_bytes()).decode()
    else:
        return []
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def read_metrics(path: Path) -> list[Record]:
    """The records of a metrics file, packed or not, with None where a number was not finite. Raises FolderError."""
    return [record for _, record in parsed(path)]


def parsed(path: Path) -> list[tuple[str, Record]]:
    """The complete lines of a metrics file with their records. Raises FolderError where one is damaged."""
    found = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise FolderError(f"Line {number} of {path} is damaged: delete that line.")
        found.append((line, record))
    return found


def without_nan(value: Any) -> Any:
    """A record with None in place of NaN and infinity."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def scalars(record: Record) -> dict[str, float]:
    """The numbers of a record; seeds become `name/seed_0`, `name/seed_1`, ..."""
    found: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, list):
            found |= {f"{name.removesuffix('/seeds')}/seed_{i}": item for i, item in enumerate(value)}
        else:
            found[name] = value
    return found


class TensorBoard:
    """TensorBoard files with environment steps on the axis."""

    def __init__(self, folder: Path, first_step: int):
        """Opens the folder; what an interrupted run wrote from `first_step` environment steps on is hidden."""
        self.writer = SummaryWriter(str(folder), purge_step=first_step)

    def write(self, record: Record) -> None:
        """Adds the scalars of a record."""
        for name, value in scalars(record).items():
            self.writer.add_scalar(name, value, record["env_steps"])

    def close(self) -> None:
        """Writes what is buffered."""
        self.writer.close()


class WeightsAndBiases:
    """A run in the project `mamba-jax` of Weights & Biases; needs the extra `wandb`."""

    def __init__(self, folder: Path, description: dict[str, Any]):
        """Starts the run, or takes up the one of the same folder."""
        import wandb

        moment = "".join(filter(str.isdigit, description["created"]))
        identity = f"{folder.name}-{moment}"
        self.run = wandb.init(
            project="mamba-jax", dir=folder, name=folder.name, id=identity, resume="allow", config=description
        )
        self.run.define_metric("*", step_metric="env_steps")

    def write(self, record: Record) -> None:
        """Sends the scalars of a record."""
        self.run.log(scalars(record))

    def close(self) -> None:
        """Ends the run."""
        self.run.finish()
