"""The folder of a run: what is in it, and who may write to it."""

import contextlib
import dataclasses
import fcntl
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from mamba_jax.config import ConfigError
from mamba_jax.presets import default_config

FORMAT = "mamba_jax run 1"
IDENTITY = ("options", "environment", "config")
PROVENANCE = ("command", "commit", "versions", "hardware")
PLANNED = (("optimizer", "cooldown"), ("ppo", "anneal"), ("bonus", "anneal"))
"""Settings by which a run plans its training by its number of environment steps."""


class FolderError(ValueError):
    """A folder that this run must not use; the message is one sentence that says what to do."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Paths of the files of a run.

    config: choices, resolved configuration, versions, hardware, those of later starts too. metrics: one JSON object a
    line. evaluation: the final test, written last, so that its presence means that the run is finished. checkpoints,
    tensorboard: folders.
    """

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def evaluation(self) -> Path:
        return self.path / "eval.json"

    @property
    def curve(self) -> Path:
        return self.path / "learning_curve.png"

    @property
    def animation(self) -> Path:
        return self.path / "rollout.gif"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    def read_config(self) -> dict[str, Any]:
        """The contents of config.json; raises FolderError where this is not the folder of a run.

        A part of the configuration that is younger than the run has its default, which stands for what was before.
        """
        try:
            description = json.loads(self.config.read_text())
        except (OSError, ValueError):
            description = None
        if not is_description(description):
            raise FolderError(f"{self.path} is not the folder of a run: it has no config.json that this program wrote.")
        with contextlib.suppress(ConfigError):  # an algorithm that is not in the registry has no defaults to know
            defaults = as_json(dataclasses.asdict(default_config(description["options"].get("algo"))))
            description["config"] = completed(description["config"], defaults)
        return description

    def note_resumption(self, description: dict[str, Any]) -> None:
        """Adds to config.json, under `resumed`, by what command and code and on what machine the run goes on, if these
        are others than at its last start."""
        found = json.loads(self.config.read_text())
        earlier = found.get("resumed", [])
        now = {name: description[name] for name in PROVENANCE}
        if any((earlier or [found])[-1].get(name) != value for name, value in now.items()):
            now["created"] = description["created"]
            write_atomically(self.config, json.dumps(found | {"resumed": [*earlier, now]}, indent=2))

    def is_run(self) -> bool:
        """Whether this is the folder of a run."""
        try:
            self.read_config()
        except FolderError:
            return False
        return True

    def read_evaluation(self) -> dict[str, Any]:
        """The contents of eval.json; raises FolderError where they are damaged, OSError where there are none."""
        try:
            result = json.loads(self.evaluation.read_text())
        except ValueError:
            result = None
        if not isinstance(result, dict) or not {"best", "last"} <= result.keys():
            raise FolderError(f"{self.evaluation} is damaged: delete it, and the run's command line tests once more.")
        return result

    def is_unused(self) -> bool:
        """Whether no run has left anything in the folder but its name: no metrics, no checkpoint, no other file."""
        if self.config.exists() and not self.is_run():
            return False
        ours = {self.lock.name, self.config.name, temporary(self.config).name}
        empty = {self.checkpoints.name, self.tensorboard.name}
        return all(
            entry.name in ours or (entry.name in empty and entry.is_dir() and not any(entry.iterdir()))
            for entry in self.path.iterdir()
        )

    def check(self, description: dict[str, Any]) -> None:
        """Raises FolderError unless the folder is new, unused, or belongs to a run of this description, of which
        `IDENTITY` is enough, or to one that can go on as it."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise FolderError(f"{self.path} is a file: choose another --logdir.")
        if self.is_unused():
            return
        try:
            found = self.read_config()
        except FolderError:
            message = f"{self.path} holds other files and is not the folder of a run: choose another --logdir."
            raise FolderError(message) from None
        differences = list(different_leaves(subset(found), subset(as_json(description))))
        if differences and not self.goes_further(description):
            if plan := self.is_longer(description) and plan_by_steps(description):
                message = f"{self.path} holds a run that cannot go on for more --steps, because {plan} plans by them"
                raise FolderError(f"{message}: choose another --logdir.")
            shown = "; ".join(differences[:3]) + (f"; and {len(differences) - 3} more" if len(differences) > 3 else "")
            raise FolderError(f"{self.path} holds a run of another configuration ({shown}): choose another --logdir.")

    def goes_further(self, description: dict[str, Any]) -> bool:
        """Whether the folder's run can go on as one of this description: it is the same with more environment steps,
        and plans nothing by their number."""
        return self.is_longer(description) and not plan_by_steps(description)

    def is_longer(self, description: dict[str, Any]) -> bool:
        """Whether a run of this description would be the folder's run with more environment steps; the folder's has a
        checkpoint."""
        found, asked = (subset(run) for run in (self.read_config(), as_json(description)))
        old, new = (run["config"].get("run", {}).pop("steps", 0) for run in (found, asked))
        return new > old and found == asked and self.checkpoints.is_dir() and any(self.checkpoints.iterdir())

    def lengthen(self, description: dict[str, Any]) -> None:
        """Gives the folder's run the environment steps of one that `goes_further`. The final test of the shorter run is
        kept under another name."""
        found = json.loads(self.config.read_text())
        if self.evaluation.exists():
            steps = found["config"]["run"]["steps"]
            self.evaluation.rename(self.evaluation.with_stem(f"{self.evaluation.stem}-{steps}"))
        write_atomically(self.config, json.dumps(found | {"config": as_json(description)["config"]}, indent=2))

    @contextlib.contextmanager
    def claimed(self, description: dict[str, Any]) -> Iterator[None]:
        """Makes the folder and keeps other processes out of it; raises FolderError where that fails."""
        self.check(description)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = self.lock.open("w")
        except OSError as error:
            raise FolderError(f"{self.path} cannot be written ({error.strerror}): choose another --logdir.") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FolderError(f"Another process is training in {self.path}: stop it or wait for it.") from None
            if not self.config.exists() or self.is_unused():
                write_atomically(self.config, json.dumps(description, indent=2))
            elif self.goes_further(description):
                self.lengthen(description)
            yield


def is_description(value: Any) -> bool:
    """Whether a value is what `describe` made, as far as its outline tells."""
    return (
        isinstance(value, dict)
        and value.get("format") == FORMAT
        and all(isinstance(value.get(name), dict) for name in IDENTITY)
    )


def describe(command: list[str], identity: dict[str, Any]) -> dict[str, Any]:
    """The contents of config.json. identity: nested dictionaries of plain values, those that `IDENTITY` names."""
    description = {
        "format": FORMAT,
        "command": command,
        **identity,
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return as_json(description)


def as_json(value: Any) -> Any:
    """Plain values as they will be read back from a file: tuples become lists."""
    return json.loads(json.dumps(value))


def completed(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries with the defaults of what they lack."""
    own = {
        name: completed(value, defaults[name]) if isinstance(value, dict) and name in defaults else value
        for name, value in values.items()
    }
    return defaults | own


def plan_by_steps(description: dict[str, Any]) -> str:
    """The setting by which a run of this description plans by its number of environment steps; empty if none does."""
    planned = [f"{part}.{name}" for part, name in PLANNED if description["config"].get(part, {}).get(name)]
    return " and ".join(planned)


def subset(description: dict[str, Any]) -> dict[str, Any]:
    """The part of a description that two starts of one run share."""
    return {name: description.get(name) for name in IDENTITY}


def setting(description: dict[str, Any]) -> dict[str, Any]:
    """The part of a description that runs share which differ only in their seeds."""
    return subset(description) | {"options": description["options"] | {"seed": None, "seeds": None}}


def different_leaves(there: Any, here: Any, path: str = "") -> Iterator[str]:
    """Where two nested dictionaries differ, as "config.run.steps is 1 there, 2 here"."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted(there.keys() | here.keys()):
            yield from different_leaves(there.get(name), here.get(name), f"{path}.{name}" if path else name)
    elif there != here:
        yield f"{path} is {there} there, {here} here"


def fill_config(template: Any, values: dict[str, Any]) -> Any:
    """A copy of nested frozen dataclasses with the values of `read_config`; ValueError for a missing or odd name."""
    names = {item.name for item in dataclasses.fields(template)}
    if names != values.keys():
        odd = ", ".join(sorted(names ^ values.keys()))
        raise ValueError(f"The run was made by another version of this program: its configuration differs in {odd}.")
    changes = {}
    for name, value in values.items():
        old = getattr(template, name)
        nested = dataclasses.is_dataclass(old)
        changes[name] = fill_config(old, value) if nested else tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(template, **changes)


def versions() -> dict[str, str]:
    """Versions of what the numbers of a run depend on."""
    packages = ("mamba-jax", "jax", "jaxlib", "flax", "optax", "distrax", "gymnax", "mujoco", "mujoco-mjx", "numpy")
    found = {"python": platform.python_version()}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def commit() -> str | None:
    """Git commit of the source that runs, with "+changes" if that was edited; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        head = git(root, "rev-parse", "HEAD")
        source = ("mamba_jax", "envs", "experiments", "constraints.txt")
        edited = git(root, "status", "--porcelain", "--untracked-files=no", "--", *source)
        return head + ("+changes" if edited else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def git(root: Path, *arguments: str) -> str:
    """Output of one git command."""
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def hardware() -> dict[str, Any]:
    """Backend, devices and host; of its CPUs those that this process may run on."""
    devices = jax.devices()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "backend": devices[0].platform,
        "devices": [device.device_kind for device in devices],
        "cpus": cpus,
        "machine": platform.machine(),
        "system": sys.platform,
    }


def in_words(description: dict[str, Any]) -> str:
    """A description by `hardware` for people: {"backend": "cpu", "cpus": 2, ...} -> "2 CPU cores"."""
    if description["backend"] == "cpu":
        cpus = description["cpus"]
        return f"{cpus} CPU core{'s' if cpus > 1 else ''}"
    devices = description["devices"]
    return f"{len(devices)} x {devices[0]}" if len(devices) > 1 else devices[0]


def temporary(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(f".{path.name}.part")


def write_atomically(path: Path, text: str) -> None:
    """Writes a whole file or, if the process dies, none."""
    part = temporary(path)
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
