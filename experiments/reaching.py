"""How an agent finds a single goal and stays: `python experiments/reaching.py RUN`, on Reacher-1 or a point robot.

Plays many fresh tasks and shows, by sub-episode and where the goal is, which goals are found, how long that takes, and
how much of the time that is left is spent there: what is lost by the search, by the way back and by not staying. Of
HalfCircle and Point-Wind it shows too how far from the goal the robot stays, and why: by what it does not know of it,
which puts the robot beside it, and by what it does not correct, which moves it about.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from belief import best_policy, direction_of_goal
from runtime import Parser, UsageError, configure_jax, one_sentence_errors, run_script, set_environment

if TYPE_CHECKING:
    import jax

    from mamba_jax.types import Algorithm

TASKS = 1000
SETTLING = 5
"""Steps after the first with reward in which a point robot still comes to the goal."""
STAYING = 20
"""Fewest steps behind those from which it is told where a robot stays."""


class Played(NamedTuple):
    """What happened in K tasks in M sub-episodes of L steps. reward: (M, L, K), of each step. goal: (K, 2), m on
    Reacher, radii of the arc elsewhere. position: (M, L, K, 2), of a point robot after each step; None on Reacher."""

    reward: np.ndarray
    goal: np.ndarray
    position: np.ndarray | None = None


class Places(NamedTuple):
    """How goals are told apart. title: of the quantity (K,) that `of` computes. edges: of its bands."""

    title: str
    of: Callable[[Played], np.ndarray]
    edges: tuple[int, ...]


DISTANCE = Places(
    "goal's distance, mm", lambda played: 1000 * np.linalg.norm(played.goal, axis=-1), (0, 70, 110, 140, 170, 195)
)
DIRECTION = Places(
    "goal's direction, degrees",
    lambda played: np.degrees(direction_of_goal(played)),
    (0, 30, 60, 90, 120, 150, 180),
)
PLACES = {"reacher": DISTANCE, "halfcircle": DIRECTION, "point-wind": DIRECTION}
"""Environment -> how its goals are told apart; the distance is that from the shoulder."""


class Reached(NamedTuple):
    """By sub-episode, (M,). found: share of the tasks in which reward was met. steps: until it first was, mean over
    those. kept: share of the steps after it that are paid. total: mean return of all tasks."""

    found: np.ndarray
    steps: np.ndarray
    kept: np.ndarray
    total: np.ndarray


class Stayed(NamedTuple):
    """Where a robot stays, by sub-episode, (M,), mean over tasks, in radii of the arc. distance: from the goal. offset:
    of its mean position from the goal. sway: root mean square distance from that mean position."""

    distance: np.ndarray
    offset: np.ndarray
    sway: np.ndarray


def main(words: list[str]) -> int:
    """Runs a command line; returns the exit code."""
    set_environment(words)
    configure_jax()
    from mamba_jax.checkpoint import CheckpointError

    with one_sentence_errors("reaching.py", {ValueError: 2, OSError: 2, CheckpointError: 1}):
        for line in table(*play_run(parser().parse_args(words).run)):
            print(line)
    return 0


def parser() -> Parser:
    """The command line."""
    found = Parser(prog="reaching.py", description="Show which goals an agent finds, how fast, and if it stays.")
    names = f"the folder of a run on {' or '.join(PLACES)}, with one goal"
    found.add_argument("run", type=Path, metavar="RUN", help=names)
    return found


def play_run(path: Path) -> tuple[Played, Places]:
    """Plays the best policy of a run, of its first seed. Raises UsageError for other environments."""
    import jax

    run, state = best_policy(path, tuple(PLACES))
    if run.single.env.subtasks not in (1, None):
        raise UsageError(f"{path} is a run with {run.single.env.subtasks} goals: choose one with a single goal.")
    program = jax.jit(partial(play_tasks, run.single, TASKS))
    return Played(*jax.device_get(program(state, run.keys.rollout))), PLACES[run.single.env.name]


def play_tasks(algo: Algorithm, tasks: int, state: Any, key: jax.Array) -> tuple[jax.Array, ...]:
    """The fields of `Played`, of a meta-episode in fresh tasks with the most likely action; pure."""
    from mamba_jax.evaluate import play

    def record(carry, states, row):
        if algo.env.name == "reacher":
            return row.reward, states.params.goals[:, 0]
        return row.reward, states.params.goal, row.observation["state"]

    reward, goals, *position = play(algo, state, key, tasks, record)
    shape = (algo.env.sub_episodes, algo.env.length, tasks)
    return reward.reshape(shape), goals[0], *(x.reshape(*shape, 2) for x in position)


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


def staying(reward: np.ndarray, position: np.ndarray, goal: np.ndarray) -> Stayed:
    """Where robots at these positions (M, L, K, 2) stay, once they have come to their goals (K, 2); not a number where
    none stays for `STAYING` steps. reward: (M, L, K). The last row of a sub-episode shows the next one's start."""
    since = np.cumsum(np.cumsum(reward > 0, 1) > 0, 1)[:, :-1] > SETTLING
    since &= since.sum(1, keepdims=True) >= STAYING
    away = np.ma.array(position[:, :-1] - goal, mask=np.repeat(~since[..., None], 2, -1))
    mean = away.mean(1)

    def length(x: Any) -> Any:
        return np.ma.sqrt((x**2).sum(-1))

    sway = np.ma.sqrt(((away - mean[:, None]) ** 2).sum(-1).mean(1))
    return Stayed(*(np.ma.filled(x.mean(1), np.nan) for x in (length(away).mean(1), length(mean), sway)))


def table(played: Played, places: Places) -> list[str]:
    """A Markdown table; within a cell the sub-episodes, in their order."""
    titles = [places.title, "tasks", "found", "steps until then", "paid of those after", "return"]
    titles += [] if played.position is None else ["distance, then", "offset", "sway"]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    where = places.of(played)
    bands = [(f"{low} to {high}", (low <= where) & (where < high)) for low, high in pairwise(places.edges)]
    for name, inside in [*bands, ("all", np.full(where.shape, True))]:
        if not inside.any():
            continue
        found = [*zip(study(played.reward[..., inside]), (2, 0, 2, 1), strict=True)]
        if played.position is not None:
            stayed = staying(played.reward[..., inside], played.position[..., inside, :], played.goal[inside])
            found += [(values, 3) for values in stayed]
        cells = [", ".join("-" if np.isnan(x) else f"{x:.{digits}f}" for x in values) for values, digits in found]
        lines.append(f"| {name} | {inside.sum()} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    run_script(main)
