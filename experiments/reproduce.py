"""Train the table of results: `python experiments/reproduce.py --rows halfcircle rooms-3 --algos mamba --seeds 3`.

Runs what is missing, resumes what is unfinished, skips what is done, then writes table.md and table.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs import Job, add_options, complete_row, execute_all, make_job, plan
from runtime import Parser, configure_jax, one_sentence_errors, run_script, set_environment

SMALL_ROWS = ("halfcircle", "point-wind", "escape-room", "rooms-3", "rooms-4", "reacher-1")


def main(words: list[str]) -> int:
    """Runs a command line; returns the exit code: 1 if a run failed."""
    set_environment()
    configure_jax(cpu_only=True)
    with one_sentence_errors("reproduce.py", {ValueError: 2, OSError: 2}):
        options = parser().parse_args(words)
        pairs = [(row, algo) for row in options.rows for algo in options.algos]
        jobs = [job for row, algo in pairs for job in runs_of(row, algo, options)]
        for job in jobs:
            print(plan(job), flush=True)
        if options.dry_run:
            return 0
        code = execute_all(jobs, options.jobs)
        write_table(options.out)
    return code


def runs_of(row: str, algo: str, options: argparse.Namespace) -> list[Job]:
    """The run of all seeds of a row and algorithm, or with `--apart` a run for each."""
    name = f"{row}-{algo}-{options.size}"
    if not options.apart:
        return [make_job(row, algo, name, [], options)]
    one = argparse.Namespace(**vars(options) | {"seeds": 1})
    return [make_job(row, algo, f"{name}-s{seed}", ["--seed", str(seed)], one) for seed in range(options.seeds)]


def parser() -> Parser:
    """The command line."""
    import mamba_jax as mj

    found = Parser(prog="reproduce.py", description="Train the table of results.")
    rows_help = f"environments, with the number of sub-tasks where there are some (default: {' '.join(SMALL_ROWS)})"
    found.add_argument("--rows", nargs="+", type=complete_row, default=SMALL_ROWS, metavar="ROW", help=rows_help)
    algos = mj.algorithms()
    found.add_argument("--algos", nargs="+", default=["mamba"], choices=algos, metavar="ALGO", help=", ".join(algos))
    add_options(found, seeds=3, out="results")
    apart_help = "train each seed in a run of its own, which with --jobs suits CPU cores"
    found.add_argument("--apart", action="store_true", help=apart_help)
    return found


def write_table(out: Path) -> None:
    """Writes table.md and table.png of all finished runs in the folder."""
    from mamba_jax.table import draw, markdown, over_seeds, read_entries

    if entries := over_seeds(read_entries(out)):
        (out / "table.md").write_text(markdown(entries, out))
        draw(entries, out / "table.png")
        print(f"Wrote {out / 'table.md'} and {out / 'table.png'}.")


if __name__ == "__main__":
    run_script(main)
