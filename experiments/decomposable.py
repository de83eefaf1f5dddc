"""How well few training tasks generalise: `experiments/decomposable.py --rooms 3 --tasks 4 16 all --out results/few`.

Trains agents on Rooms-N from M training tasks only and tests them in fresh tasks of the whole distribution and in the
training tasks; the difference of the two returns is the generalisation gap. Runs what is missing, resumes what is
unfinished, skips what is done, then writes decomposable.md and decomposable.png of all finished runs in the folder.

The training tasks are drawn once, so some may be alike (the table counts the different ones); all seeds train on the
same ones, and more of them include fewer. Fresh tasks may be among them too: Rooms-N has only 4^N tasks.

The last panel of the figure is no measurement. It draws how the paper's bounds on the number of training tasks grow
(Rimon et al., "MAMBA: an Effective World Model Approach for Meta-Reinforcement Learning", ICLR 2024): exponentially in
the dimension of the task, or, where the distribution is decomposable, linearly in the number of sub-tasks and
exponentially only in the dimension of one. One room of Rooms-N has 4 possible goals, which makes that 4^N and 4 N. The
factors that the bounds have besides are left out: only the growth can be compared.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jobs import EARLIER_ROOMS, Job, add_options, execute_all, finished, make_job, plan
from runtime import Parser, configure_jax, one_sentence_errors, run_script, set_environment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mamba_jax.table import Entry

STEPS = {
    "mamba": {2: 3_200_000, 3: 4_480_000, 4: 5_760_000},
    "varibad": {2: 6_000_000, 3: 10_000_000, 4: 10_000_000},
}
"""Algorithm -> rooms -> environment steps of a seed in the recorded runs: fewer than those of size small, so that three
seeds take a CPU core one to two hours at most."""

GAP = "gap.json"
"""In the folder of a run: its test in the training tasks."""


class Result(NamedTuple):
    """A finished run. entry: of the table of results; its scores are the returns in fresh tasks. rooms: N. tasks: M,
    None for the whole distribution. different: tasks among them that are not alike. gap: (seeds,) return in training
    tasks less that in fresh tasks."""

    entry: Entry
    rooms: int
    tasks: int | None
    different: int
    gap: np.ndarray


def main(words: list[str]) -> int:
    """Runs a command line; returns the exit code: 1 if a run failed."""
    set_environment()
    configure_jax(cpu_only=True)
    from mamba_jax.checkpoint import CheckpointError

    with one_sentence_errors("decomposable.py", {ValueError: 2, OSError: 2, CheckpointError: 1}):
        options = parser().parse_args(words)
        jobs = make_jobs(options)
        for job in jobs:
            print(plan(job), flush=True)
        if options.dry_run:
            return 0
        code = execute_all(jobs, options.jobs)
        for job in jobs:
            if code <= 1 and finished(job) and job.choice.options.train_tasks is not None:
                measure_gap(job.folder)
        write_results(options.out)
    return code


def parser() -> Parser:
    """The command line."""
    from options import at_least_one

    import mamba_jax as mj

    found = Parser(prog="decomposable.py", description="Train on few tasks of Rooms-N and test in fresh ones.")
    found.add_argument("--rooms", nargs="+", type=at_least_one, default=[2, 3, 4], metavar="N", help="default: 2 3 4")
    tasks_help = "training tasks, or all for the whole distribution (default: 4 8 16 32 64 all)"
    tasks = [4, 8, 16, 32, 64, None]
    found.add_argument("--tasks", nargs="+", type=number_or_all, default=tasks, metavar="M", help=tasks_help)
    algos = mj.algorithms()
    algos_help = f"{', '.join(algos)} (default: mamba varibad)"
    found.add_argument(
        "--algos", nargs="+", default=["mamba", "varibad"], choices=algos, metavar="ALGO", help=algos_help
    )
    steps = "those of the size; at size small those of the recorded runs, where there are some"
    add_options(found, seeds=3, out="results/decomposable", steps=steps)
    return found


def number_or_all(word: str) -> int | None:
    """A positive whole number, or None for "all"."""
    from options import at_least_one

    return None if word == "all" else at_least_one(word)


def make_jobs(options: argparse.Namespace) -> list[Job]:
    """The runs of all rooms, algorithms and numbers of training tasks. Raises UsageError or ValueError."""
    jobs = []
    for rooms, algo, tasks in itertools.product(options.rooms, options.algos, options.tasks):
        extra = [] if tasks is None else ["--train-tasks", str(tasks)]
        steps = STEPS.get(algo, {}).get(rooms)
        if steps and options.steps is None and options.size == "small":
            extra += ["--steps", str(steps)]
        if algo == "mamba":
            extra += EARLIER_ROOMS
        jobs.append(make_job(f"rooms-{rooms}", algo, f"rooms-{rooms}-{algo}-{tasks or 'all'}", extra, options))
    return jobs


def measure_gap(folder: Path) -> None:
    """Tests the best policy of a run, on the CPU, in its training tasks, which are drawn as often as fresh ones in its
    final test, and writes gap.json; does nothing where that is there and belongs to this final test."""
    from evaluate import load_run

    from mamba_jax.final import compile_test, summary
    from mamba_jax.run_folder import RunFolder, write_atomically
    from mamba_jax.run_state import load_policy
    from mamba_jax.table import read_entry

    entry = read_entry(RunFolder(folder))
    if read_gap(entry):
        return
    run = load_run(folder)
    policy, _ = load_policy(run, "best")
    score = compile_test(run, policy, run.single.config.run.test_tasks, fresh=False)(policy)
    gap = np.atleast_1d(score.return_mean) - entry.scores
    result = {"gap": gap.tolist(), "different_tasks": different_tasks(run.single.env), "training": summary(score)}
    write_atomically(folder / GAP, json.dumps(result, indent=2))


def read_gap(entry: Entry) -> dict[str, Any] | None:
    """What `measure_gap` wrote of a run; None where it did not, or of a final test before the run went on."""
    from mamba_jax.table import scores_of

    path = entry.path / GAP
    if not path.exists():
        return None
    tested = json.loads(path.read_text())
    current = np.allclose(scores_of(tested["training"]), entry.scores + tested["gap"], atol=1e-3)
    return tested if current else None


def different_tasks(env: Any) -> int:
    """How many of the training tasks of a meta-environment of rooms are not alike."""
    import jax
    import jax.numpy as jnp

    goals = jax.vmap(env.training_task)(jnp.arange(env.train_tasks)).goals
    return len(np.unique(np.asarray(goals), axis=0))


def write_results(out: Path) -> None:
    """Writes decomposable.md and decomposable.png of all runs in the folder that were tested."""
    if results := read_results(out):
        (out / "decomposable.md").write_text(markdown(results))
        draw(results, out / "decomposable.png")
        print(f"Wrote {out / 'decomposable.md'} and {out / 'decomposable.png'}.")


def read_results(out: Path) -> list[Result]:
    """The tested runs by rooms, algorithm and number of training tasks, the whole distribution last."""
    from mamba_jax.run_folder import RunFolder
    from mamba_jax.table import read_entries

    results = []
    for entry in read_entries(out):
        options = RunFolder(entry.path).read_config()["options"]
        rooms, tasks = options["subtasks"], options["train_tasks"]
        if options["env"] != "rooms" or rooms is None:
            continue
        if tasks is None:
            results.append(Result(entry, rooms, None, 4**rooms, np.zeros(len(entry.scores))))
        elif tested := read_gap(entry):
            results.append(Result(entry, rooms, tasks, tested["different_tasks"], np.array(tested["gap"])))
    return sorted(results, key=lambda result: (result.rooms, result.entry.algo, result.tasks or np.inf))


def markdown(results: list[Result]) -> str:
    """A table with one line per run; links to the runs' folders are relative to the folder that they are in."""
    from mamba_jax.table import duration, mean_and_deviation, millions

    lines = [
        "| environment | algorithm, size | training tasks | different ones, of all | return in training tasks "
        "± std over seeds | in fresh tasks | gap | steps | time, all seeds | run |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for entry, rooms, tasks, different, gap in results:
        cells = [
            entry.row,
            f"{entry.algo}, {entry.size}",
            str(tasks or "all"),
            f"{different} of {4**rooms}",
            mean_and_deviation(entry.scores + gap),
            mean_and_deviation(entry.scores),
            mean_and_deviation(gap) if tasks else "-",
            millions(entry.steps),
            f"{duration(entry.seconds)}, {entry.hardware}",
            f"[{entry.path.name}]({entry.path.name})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(results: list[Result], path: Path) -> None:
    """Draws for every N the gap and below it the returns against M; beside them the growth of the bounds."""
    from mamba_jax.curves import grid

    rooms = sorted({result.rooms for result in results})
    columns = len(rooms) + 1
    figure, panels = grid(2 * columns, columns=columns, size=(4, 3.4))
    for column, number in enumerate(rooms):
        upper, lower = panels[column], panels[columns + column]
        lower.sharex(upper)
        own = [result for result in results if result.rooms == number]
        for index, algo in enumerate(dict.fromkeys(result.entry.algo for result in own)):
            draw_algorithm(upper, lower, [result for result in own if result.entry.algo == algo], f"C{index}")
        upper.axhline(0, color="grey", linewidth=0.5)
        upper.axvline(4**number, color="black", linestyle=":", linewidth=1, label=f"{4**number} tasks in all")
        upper.set_title(f"rooms-{number}: generalisation gap")
        upper.legend(fontsize="small")
        lower.set_title(
            "return: solid fresh, dashed training tasks,\ndotted trained on the whole distribution", fontsize=9
        )
        for panel in (upper, lower):
            panel.set_xscale("log", base=2)
            panel.set_xlabel("training tasks")
    draw_bounds(panels[columns - 1], max(rooms))
    panels[-1].set_axis_off()
    figure.savefig(path, dpi=120)


def draw_algorithm(upper: Axes, lower: Axes, results: list[Result], colour: str) -> None:
    """Draws the gaps and the returns of one algorithm on one N."""
    few = [result for result in results if result.tasks is not None]
    tasks = np.array([result.tasks for result in few])
    draw_line(upper, tasks, [result.gap for result in few], color=colour, label=results[0].entry.algo)
    draw_line(lower, tasks, [result.entry.scores for result in few], color=colour)
    draw_line(lower, tasks, [result.entry.scores + result.gap for result in few], color=colour, linestyle="--")
    for result in results:
        if result.tasks is None:
            lower.axhline(result.entry.scores.mean(), color=colour, linestyle=":")


def draw_line(panel: Axes, tasks: np.ndarray, values: list[np.ndarray], **style: Any) -> None:
    """Draws the mean of values, (seeds,) for every number of tasks, with bars of one deviation."""
    mean, deviation = [x.mean() for x in values], [x.std() for x in values]
    panel.errorbar(tasks, mean, deviation, marker="o", markersize=3, capsize=2, **style)


def draw_bounds(panel: Axes, most: int) -> None:
    """Draws how the bounds grow for 1 to `most` rooms; nothing in it is measured, see the top of this file."""
    rooms = np.arange(1, most + 1)
    panel.plot(rooms, 4**rooms, color="black", label="$4^N$: any distribution")
    panel.plot(rooms, 4 * rooms, color="black", linestyle="--", label="$4 N$: decomposable")
    panel.set_yscale("log", base=2)
    panel.set_xticks(rooms)
    panel.set_xlabel("rooms N")
    panel.set_title("not measured: growth of the bounds on\ntraining tasks (Rimon et al. 2024), no factors", fontsize=9)
    panel.legend(fontsize="small")


if __name__ == "__main__":
    run_script(main)
