"""What MAMBA's parts are worth: `python experiments/ablations.py --row rooms-3 --seeds 5 --steps 4480000`.

Trains MAMBA on one row as it is and with one part changed at a time. Runs what is missing, resumes what is unfinished,
skips what is done, then writes ablations.md and ablations.png of all finished runs in the folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import EARLIER_ROOMS, Job, add_options, complete_row, execute_all, make_job, plan
from runtime import Parser, configure_jax, one_sentence_errors, run_script, set_environment

if TYPE_CHECKING:
    from mamba_jax.curves import Curve
    from mamba_jax.table import Entry

# Variant -> arguments of run.py. Which of the two pairings is the full agent's depends on the row.
VARIANTS: dict[str, list[str]] = {
    "full": [],
    "without-reward-and-time": ["--config.world-model.reward-and-time", "false"],
    "random-windows": ["--config.data.context", "window", "--config.data.window", "64"],
    "without-schedule": ["--config.horizon.initial", "0"],
    "without-local-reconstruction": ["--config.world-model.window", "0"],
    "released-pairing": ["--config.world-model.pairing", "released"],
    "aligned-pairing": ["--config.world-model.pairing", "aligned"],
    "without-exploring-lanes": ["--config.data.explore", "0"],
    "final-boundary": ["--boundary", "final"],
}


def main(words: list[str]) -> int:
    """Runs a command line; returns the exit code: 1 if a run failed."""
    set_environment(words)
    configure_jax(cpu_only=True)
    with one_sentence_errors("ablations.py", {ValueError: 2, OSError: 2}):
        options = parser().parse_args(words)
        jobs = make_jobs(options)
        for job in jobs:
            print(plan(job), flush=True)
        if options.dry_run:
            return 0
        code = execute_all(jobs, options.jobs)
        write_results(options.out)
    return code


def parser() -> Parser:
    """The command line."""
    found = Parser(prog="ablations.py", description="Train MAMBA with one part changed at a time.")
    row_help = "an environment, with the number of sub-tasks where there are some (default: rooms-3)"
    found.add_argument("--row", type=complete_row, default="rooms-3", help=row_help)
    variants_help = f"{', '.join(VARIANTS)} (default: all)"
    found.add_argument(
        "--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS, metavar="VARIANT", help=variants_help
    )
    add_options(found, seeds=5, out="results/ablations")
    return found


def make_jobs(options: argparse.Namespace) -> list[Job]:
    """The runs of the chosen variants; says which are left out. Raises UsageError or ValueError."""
    agent = EARLIER_ROOMS if options.row.startswith("rooms-") else []

    def job_of(variant: str) -> Job:
        extra = [*agent, *VARIANTS[variant]]
        return make_job(options.row, "mamba", f"{options.row}-{variant}", extra, options)

    full, jobs = agent_of(job_of("full")), []
    for variant in options.variants:
        job = job_of(variant)
        if variant != "full" and agent_of(job) == full:
            print(f"{job.folder}: left out, since the full agent of {options.row} at size {options.size} is no other")
        else:
            jobs.append(job)
    return jobs


def agent_of(job: Job) -> tuple[Any, str]:
    """What a variant may change: the configuration, and the boundary of sub-episodes."""
    return job.choice.algo.config, job.choice.options.boundary


def write_results(out: Path) -> None:
    """Writes ablations.md and ablations.png of all finished runs in the folder."""
    from mamba_jax.table import markdown

    if entries := read_variants(out):
        (out / "ablations.md").write_text(markdown(entries, out))
        draw(entries, out / "ablations.png")
        print(f"Wrote {out / 'ablations.md'} and {out / 'ablations.png'}.")


def read_variants(out: Path) -> list[Entry]:
    """The finished runs by row, in the order of `VARIANTS`, each under the name of its variant; the full agent keeps
    the algorithm's, under which the paper's figure is known."""
    from mamba_jax.table import read_entries

    found = []
    for entry in read_entries(out):
        variant = entry.path.name.removeprefix(f"{entry.row}-")
        if variant in VARIANTS:
            found.append(entry if variant == "full" else entry._replace(algo=variant))
    order = ["mamba", *VARIANTS]
    return sorted(found, key=lambda entry: (entry.row, order.index(entry.algo)))


def read_curve_of(entry: Entry) -> Curve:
    """The learning curve of a variant, under its name."""
    from mamba_jax.curves import read_curve
    from mamba_jax.run_folder import RunFolder

    return read_curve(RunFolder(entry.path))._replace(algo=entry.algo, label=entry.algo)


def draw(entries: list[Entry], path: Path) -> None:
    """Draws for every row the learning curves, mean over seeds in a band of one deviation, and the final returns: the
    interquartile mean with its interval, and every seed."""
    from mamba_jax import curves, table

    rows = list(dict.fromkeys(entry.row for entry in entries))
    figure, panels = curves.grid(2 * len(rows), columns=2, size=(6.5, 5))
    for row, left, right in zip(rows, panels[::2], panels[1::2], strict=True):
        own = [entry for entry in entries if entry.row == row]
        ((task, by_label),) = curves.grouped(read_curve_of(entry) for entry in own).items()
        curves.draw_panel(left, task, by_label)
        table.draw_panel(right, own)
        right.set_xticks(range(len(own)), [entry.algo for entry in own], rotation=30, ha="right", fontsize="small")
        right.set_title("final return in fresh tasks")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run_script(main)
