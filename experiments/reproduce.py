"""Train the table of results: `python experiments/reproduce.py --rows halfcircle rooms-3 --algos mamba --seeds 3`.

Runs what is missing, resumes what is unfinished, skips what is done, then writes table.md and table.png.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runtime import Parser, UsageError, configure_jax, one_sentence_errors, set_environment

if TYPE_CHECKING:
    from mamba_jax.signals import StopRequest

SCRIPT = Path(__file__).resolve().parent / "run.py"
SMALL_ROWS = ("halfcircle", "point-wind", "escape-room", "rooms-3", "rooms-4", "reacher-1")


class Job(NamedTuple):
    """One run of the table. row: environment and sub-tasks as in "rooms-3". folder: where it goes.

    arguments: of run.py. updates: it makes in all, for each seed.
    """

    row: str
    algo: str
    folder: Path
    arguments: list[str]
    updates: int


def main(words: list[str]) -> int:
    """Runs a command line; returns the exit code: 1 if a run failed."""
    set_environment()
    configure_jax()
    with one_sentence_errors("reproduce.py", {ValueError: 2}):
        options = parser().parse_args(words)
        jobs = [make_job(row, algo, options) for row in options.rows for algo in options.algos]
        for job in jobs:
            print(plan(job, options), flush=True)
        if options.dry_run:
            return 0
        code = execute_all([job for job in jobs if not finished(job, options.seeds)], options.jobs)
        write_table(options.out)
    return code


def parser() -> Parser:
    """The command line."""
    import mamba_jax as mj
    from mamba_jax.presets import SIZES

    found = Parser(prog="reproduce.py", description="Train the table of results.")
    rows_help = f"environments, with the number of sub-tasks where there are some (default: {' '.join(SMALL_ROWS)})"
    found.add_argument("--rows", nargs="+", default=SMALL_ROWS, metavar="ROW", help=rows_help)
    algos = mj.algorithms()
    found.add_argument("--algos", nargs="+", default=["mamba"], choices=algos, metavar="ALGO", help=", ".join(algos))
    found.add_argument("--seeds", type=int, default=3, metavar="K", help="at once in one program (default: 3)")
    found.add_argument("--size", choices=SIZES, default="small", help="default: small")
    found.add_argument("--out", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    found.add_argument("--jobs", type=int, default=1, metavar="J", help="runs side by side (default: 1)")
    found.add_argument("--dry-run", action="store_true", help="say what would be done and how long it may take")
    return found


def make_job(row: str, algo: str, options: argparse.Namespace) -> Job:
    """The run of a row such as "rooms-3". Raises UsageError or ValueError for one that is unknown."""
    from options import split_row

    import envs
    import mamba_jax as mj

    if options.seeds < 1 or options.jobs < 1:
        raise UsageError("--seeds and --jobs must be at least 1.")
    name, subtasks = split_row(row)
    env = envs.make(name, subtasks=subtasks)
    made = mj.make(algo, env, mj.preset(algo, env, size=options.size))
    rounds = -(-made.config.run.steps // made.steps_per_round)
    folder = options.out / f"{row}-{algo}-{options.size}"
    arguments = ["--env", name, "--algo", algo, "--size", options.size, "--seeds", str(options.seeds)]
    arguments += [*(["--subtasks", str(subtasks)] if subtasks else []), "--logdir", str(folder)]
    return Job(row, algo, folder, arguments, rounds * made.updates_per_round)


def finished(job: Job, seeds: int) -> bool:
    """Whether the folder holds the result of a run of so many seeds; run.py refuses one of another configuration."""
    from mamba_jax.run_folder import RunFolder

    folder = RunFolder(job.folder)
    return folder.evaluation.exists() and folder.read_config()["options"]["seeds"] == seeds


def plan(job: Job, options: argparse.Namespace) -> str:
    """What will be done for a run, and how long it may take."""
    from mamba_jax.log import read_metrics
    from mamba_jax.run_folder import RunFolder

    if finished(job, options.seeds):
        return f"{job.folder}: done"
    records = read_metrics(RunFolder(job.folder).metrics)
    done = records[-1]["updates"] if records else 0
    pace = seconds_per_update(job, options) if len(records) < 2 else records[-1]["seconds"] / max(1, done)
    left = f"about {(job.updates - done) * pace / 60:.0f} min" if pace else "nobody measured how long"
    verb = f"resume at {done:,} of {job.updates:,} updates" if done else f"train {job.updates:,} updates"
    return f"{job.folder}: {verb} with {options.seeds} seeds, {left}"


def seconds_per_update(job: Job, options: argparse.Namespace) -> float | None:
    """Measured by a finished run of the same row, algorithm and size, scaled to the number of seeds; else None."""
    from mamba_jax.table import read_entries

    for entry in read_entries(options.out):
        if (entry.row, entry.algo, entry.size) == (job.row, job.algo, options.size):
            return entry.seconds / entry.updates / len(entry.scores) * options.seeds
    return None


def execute_all(jobs: list[Job], side_by_side: int) -> int:
    """Trains all jobs; returns 0, 1 if one failed, or 128 + the signal that stopped them."""
    from mamba_jax.signals import StopRequest

    with StopRequest() as stop, ThreadPoolExecutor(side_by_side) as pool:
        codes = list(pool.map(lambda job: execute(job, side_by_side > 1, stop), jobs))
    return 128 + stop.number if stop.number else int(any(codes))


def execute(job: Job, quiet: bool, stop: StopRequest) -> int:
    """Trains in a process of its own, which resumes by itself; returns its exit code. Starts nothing after a signal."""
    if stop.number:
        return 128 + stop.number
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(Path(f"{job.folder}.log").open("a")) if quiet else None
        process = subprocess.Popen([sys.executable, str(SCRIPT), *job.arguments], stdout=log, stderr=log)
        while process.poll() is None and not stop.number:
            time.sleep(0.2)
        if stop.number:
            process.terminate()  # Ctrl-C reaches it by itself, but other signals only this process
        code = process.wait()
    said = "finished" if code == 0 else f"ended with exit code {code}"
    print(f"{job.folder}: {said}" + (f", see {log.name}" if log else ""), flush=True)
    return code


def write_table(out: Path) -> None:
    """Writes table.md and table.png of all finished runs in the folder."""
    from mamba_jax.table import draw, markdown, read_entries

    if entries := read_entries(out):
        (out / "table.md").write_text(markdown(entries, out))
        draw(entries, out / "table.png")
        print(f"Wrote {out / 'table.md'} and {out / 'table.png'}.")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
