"""Where an agent of Reacher-1 finds the goal: `python experiments/reaching.py RUN`.

Plays many fresh tasks and shows, by sub-episode and distance of the goal from the shoulder, which goals are found, how
long that takes, and how much of the time that is left is spent there: what is lost by the search, by the way back and
by not staying.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from belief import best_policy
from runtime import Parser, UsageError, configure_jax, one_sentence_errors, run_script, set_environment

if TYPE_CHECKING:
    import jax

    from mamba_jax.types import Algorithm

TASKS = 1000

EDGES = (0, 70, 110, 140, 170, 195)
"""Distances of the goal from the shoulder that are told apart, mm."""


class Played(NamedTuple):
    """What happened in K tasks in M sub-episodes of L steps. reward: (M, L, K), of each step. goal: (K, 2), m."""

    reward: np.ndarray
    goal: np.ndarray


class Reached(NamedTuple):
    """By sub-episode, (M,). found: share of the tasks in which reward was met. steps: until it first was, mean over
    those. kept: share of the steps after it that are paid. total: mean return of all tasks."""

    found: np.ndarray
    steps: np.ndarray
    kept: np.ndarray
    total: np.ndarray


def main(words: list[str]) -> int:
    """Runs a command line; returns the exit code."""
    set_environment(words)
    configure_jax()
    from mamba_jax.checkpoint import CheckpointError

    with one_sentence_errors("reaching.py", {ValueError: 2, OSError: 2, CheckpointError: 1}):
        for line in table(play_run(parser().parse_args(words).run)):
            print(line)
    return 0


def parser() -> Parser:
    """The command line."""
    found = Parser(prog="reaching.py", description="Show which goals an agent of Reacher-1 finds, and how fast.")
    found.add_argument("run", type=Path, metavar="RUN", help="the folder of a run on reacher with one goal")
    return found


def play_run(path: Path) -> Played:
    """Plays the best policy of a run, of its first seed. Raises UsageError for other environments."""
    import jax

    run, state = best_policy(path, ("reacher",))
    if run.single.env.subtasks != 1:
        raise UsageError(f"{path} is a run with {run.single.env.subtasks} goals: choose one with a single goal.")
    return Played(*jax.device_get(jax.jit(partial(play_tasks, run.single, TASKS))(state, run.keys.rollout)))


def play_tasks(algo: Algorithm, tasks: int, state: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The fields of `Played`, of a meta-episode in fresh tasks with the most likely action; pure."""
    from mamba_jax.evaluate import play

    reward, goals = play(algo, state, key, tasks, lambda carry, states, row: (row.reward, states.params.goals))
    return reward.reshape(algo.env.sub_episodes, algo.env.length, tasks), goals[0, :, 0]


def study(reward: np.ndarray) -> Reached:
    """What the rewards (M, L, K) of some tasks say; not a number where nothing was found."""
    paid = reward > 0
    after = np.cumsum(paid, 1) > paid  # the steps behind the first that is paid
    found = paid.any(1)
    tasks, left = (np.where(count > 0, count, np.nan) for count in (found.sum(1), after.sum(2).sum(1)))
    return Reached(
        found=found.mean(1),
        steps=np.where(found, paid.argmax(1) + 1, 0).sum(1) / tasks,
        kept=(paid & after).sum(2).sum(1) / left,
        total=reward.sum(1).mean(1),
    )


def table(played: Played) -> list[str]:
    """A Markdown table; within a cell the sub-episodes, in their order."""
    lines = [
        "| goal's distance, mm | tasks | found | steps until then | paid of those after | return |",
        "|---|---|---|---|---|---|",
    ]
    distance = 1000 * np.linalg.norm(played.goal, axis=-1)
    bands = [(f"{low} to {high}", (low <= distance) & (distance < high)) for low, high in pairwise(EDGES)]
    for name, inside in [*bands, ("all", np.full(distance.shape, True))]:
        if not inside.any():
            continue
        reached = study(played.reward[..., inside])
        cells = [
            ", ".join("-" if np.isnan(x) else f"{x:.{digits}f}" for x in values)
            for values, digits in zip(reached, (2, 0, 2, 1), strict=True)
        ]
        lines.append(f"| {name} | {inside.sum()} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    run_script(main)
