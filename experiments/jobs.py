"""Sets of runs: what each will take, and training of those that are not finished, each in a process of its own."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runtime import Parser, UsageError, usable_cpus, uses_mjx

if TYPE_CHECKING:
    from options import Choice

    from mamba_jax.signals import StopRequest

SCRIPT = Path(__file__).resolve().parent / "run.py"

EARLIER_ROOMS = ["--config.data.burst", "0", "--config.world-model.pairing", "aligned"]
EARLIER_ROOMS += ["--config.world-model.eval-latents", "sampled"]
EARLIER_ROOMS += ["--config.run.eval-tasks", "100", "--config.run.eval-every", "1024"]
"""Arguments of run.py: MAMBA on Rooms-N as in the recorded runs of ablations.py and decomposable.py, made before its
preset at size small had bursts of exploration, the released pairing and, on Rooms-3, other evaluations."""


class Job(NamedTuple):
    """A run of run.py. row: environment and sub-tasks as in "rooms-3". arguments: its command line. choice: what that
    asks for."""

    row: str
    arguments: list[str]
    choice: Choice

    @property
    def folder(self) -> Path:
        """Where it goes."""
        return self.choice.logdir

    @property
    def seeds(self) -> int:
        """Seeds that it trains at once."""
        return self.choice.options.seeds

    @property
    def updates(self) -> int:
        """Updates that it makes in all, for each seed, at most: a prefill counts as steps too."""
        algo = self.choice.algo
        return -(-algo.config.run.steps // algo.steps_per_round) * algo.updates_per_round


def add_options(found: Parser, *, seeds: int, out: str, steps: str = "those of the size") -> None:
    """Adds the options that all sets of runs have, with these defaults; steps says in words what theirs are."""
    from options import at_least_one, whole_number

    from mamba_jax.presets import SIZES

    seeds_help = f"at once in one program (default: {seeds})"
    found.add_argument("--seeds", type=at_least_one, default=seeds, metavar="K", help=seeds_help)
    found.add_argument("--size", choices=SIZES, default="small", help="default: small")
    steps_help = f"environment steps of a seed (default: {steps})"
    found.add_argument("--steps", type=whole_number, metavar="S", help=steps_help)
    found.add_argument("--out", type=Path, default=Path(out), metavar="DIR", help=f"default: {out}")
    found.add_argument("--jobs", type=at_least_one, default=1, metavar="J", help="runs side by side (default: 1)")
    found.add_argument("--dry-run", action="store_true", help="say what would be done and how long it may take")


def make_job(row: str, algo: str, folder: str, extra: list[str], options: argparse.Namespace) -> Job:
    """The run of an algorithm on a row such as "rooms-3", with extra arguments of run.py, in a folder of `--out`.

    options: those of `add_options`. Raises UsageError or ValueError for what run.py would refuse.
    """
    from options import parse, split_row

    name, subtasks = split_row(row)
    words = ["--env", name, *([] if subtasks is None else ["--subtasks", str(subtasks)])]
    words += ["--algo", algo, "--size", options.size, "--seeds", str(options.seeds)]
    words += [] if options.steps is None else ["--steps", str(options.steps)]
    words += [*extra, "--logdir", str(options.out / folder)]
    return Job(row, words, parse(words))


def complete_row(row: str) -> str:
    """A row with the default number of sub-tasks where it lacks one that its environment has: "rooms" -> "rooms-3"."""
    import envs

    subtasks = envs.default_subtasks(row)
    return row if subtasks is None else f"{row}-{subtasks}"


def finished(job: Job) -> bool:
    """Whether the folder holds the result of the run, and not of one with fewer steps that can go on as it. Raises
    UsageError where it belongs to another one."""
    from mamba_jax.run_folder import FolderError, RunFolder

    folder = RunFolder(job.folder)
    try:
        folder.check(job.choice.identity())
    except FolderError as error:
        raise UsageError(str(error).replace("--logdir", "--out")) from None
    return folder.evaluation.exists() and not folder.goes_further(job.choice.identity())


def plan(job: Job) -> str:
    """What will be done for a run, and how long it may take."""
    from mamba_jax.log import read_metrics
    from mamba_jax.run_folder import RunFolder

    if finished(job):
        return f"{job.folder}: done"
    records = read_metrics(RunFolder(job.folder).metrics)
    done = records[-1]["updates"] if records else 0
    pace, where = measured_pace(job) if len(records) < 2 else (records[-1]["seconds"] / max(1, done), "")
    left = f"about {(job.updates - done) * pace / 60:.0f} min{where}" if pace else "nobody measured how long"
    verb = f"resume at {done:,} of {job.updates:,} updates" if done else f"train {job.updates:,} updates"
    return f"{job.folder}: {verb} with {job.seeds} seeds, {left}"


def measured_pace(job: Job) -> tuple[float | None, str]:
    """Seconds of an update by a finished run of the same row, algorithm and size beside it, scaled to the seeds, and
    " on" what hardware; (None, "") where there is none."""
    from mamba_jax.table import read_entries

    asked = job.choice.options
    for entry in read_entries(job.folder.parent):
        if (entry.row, entry.algo, entry.size) == (job.row, asked.algo, asked.size):
            return entry.seconds / entry.updates / len(entry.scores) * job.seeds, f" on {entry.hardware}"
    return None, ""


def execute_all(jobs: list[Job], side_by_side: int) -> int:
    """Trains the jobs that are not finished; returns 0, 1 if one failed, or 128 + the signal that stopped them."""
    from mamba_jax.signals import StopRequest

    left = [job for job in jobs if not finished(job)]
    side_by_side = max(1, min(side_by_side, len(left)))
    with StopRequest() as stop, ThreadPoolExecutor(side_by_side) as pool:
        codes = list(pool.map(lambda job: execute(job, side_by_side, stop), left))
    return 128 + stop.number if stop.number else int(any(codes))


def environment(side_by_side: int, arguments: Sequence[str]) -> dict[str, str]:
    """The environment variables of one of several runs; those that are set already stay.

    Each gets its share of 90% of a GPU's memory, of which JAX takes three quarters for the first by itself, and of the
    CPUs, since threads that are more than these hold each other up. MJX's programs need their threads (`runtime`).
    """
    if side_by_side == 1:
        return dict(os.environ)
    shares = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / side_by_side:.3f}"}
    if not uses_mjx(arguments):
        shares["NPROC"] = str(max(1, usable_cpus() // side_by_side))
    return shares | os.environ


def execute(job: Job, side_by_side: int, stop: StopRequest) -> int:
    """Trains in a process of its own, which resumes by itself; returns its exit code. Starts nothing after a signal.

    Of several runs side by side each writes to a file of its own.
    """
    if stop.number:
        return 128 + stop.number
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(Path(f"{job.folder}.log").open("a")) if side_by_side > 1 else None
        words = [sys.executable, str(SCRIPT), *job.arguments]
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment(side_by_side, job.arguments))
        while process.poll() is None and not stop.number:
            time.sleep(0.2)
        if stop.number:
            process.terminate()  # Ctrl-C reaches it by itself, but other signals only this process
        code = process.wait()
    said = "finished" if code == 0 else f"ended with exit code {code}"
    print(f"{job.folder}: {said}" + (f", see {log.name}" if log else ""), flush=True)
    return code
