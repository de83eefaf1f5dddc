"""What an agent remembers of Rooms-N: `python experiments/recall.py RUN`.

Plays many fresh tasks and counts, by sub-episode and room, the steps from the goal before it to the room's goal beyond
the shortest way: 2 on average for the best search, none for an agent that remembers the goal and goes there. A small
probe reads the corner of every goal from the memory that the sub-episode starts with, which tells whether what is not
used is not known: a quarter by chance.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from belief import best_policy, memory_of, train_probe
from runtime import Parser, configure_jax, one_sentence_errors, run_script, set_environment

if TYPE_CHECKING:
    import jax

    from mamba_jax.types import Algorithm, TimeStep

PERIOD = 6
"""Columns from a room to the next."""

TASKS, HELD_OUT = 4096, 1024
PROBE_UPDATES = 300


class Played(NamedTuple):
    """What happened in K tasks in M sub-episodes of L steps. reward: (M, L, K) that the steps led to. goals: (K, N, 2)
    cells. memory: (M, K, F), which chose the first action of every sub-episode."""

    reward: np.ndarray
    goals: np.ndarray
    memory: np.ndarray


class Search(NamedTuple):
    """By sub-episode and room, (M, N). reached: share of the tasks in which the goal was reached. detour: mean
    steps beyond the shortest way from the goal before it, or the start, where it was. known: share of the held-out
    tasks in which the probe names the goal's corner."""

    reached: np.ndarray
    detour: np.ndarray
    known: np.ndarray


def main(words: list[str]) -> int:
    """Runs a command line; returns the exit code."""
    set_environment(words)
    configure_jax()
    from mamba_jax.checkpoint import CheckpointError

    with one_sentence_errors("recall.py", {ValueError: 2, OSError: 2, CheckpointError: 1}):
        for line in table(study(play_run(parser().parse_args(words).run))):
            print(line)
    return 0


def parser() -> Parser:
    """The command line."""
    found = Parser(prog="recall.py", description="Count the detours of an agent of Rooms-N.")
    found.add_argument("run", type=Path, metavar="RUN", help="the folder of a run on rooms")
    return found


def play_run(path: Path) -> Played:
    """Plays the best policy of a run, of its first seed. Raises UsageError for other environments."""
    import jax

    run, state = best_policy(path, ("rooms",))
    return Played(*jax.device_get(jax.jit(partial(play_tasks, run.single, TASKS))(state, run.keys.rollout)))


def play_tasks(algo: Algorithm, tasks: int, state: Any, key: jax.Array) -> tuple[jax.Array, ...]:
    """The fields of `Played`, of a meta-episode in fresh tasks with the most likely action; pure."""
    from mamba_jax.evaluate import play

    def record(carry: Any, env_states: Any, row: TimeStep) -> tuple[jax.Array, ...]:
        return memory_of(carry, tasks), row.reward, env_states.params.goals

    def by_sub_episode(x: jax.Array) -> jax.Array:
        return x.reshape(algo.env.sub_episodes, algo.env.length, *x.shape[1:])

    memory, reward, goals = map(by_sub_episode, play(algo, state, key, tasks, record))
    return reward, goals[0, 0], memory[:, 0]


def study(played: Played) -> Search:
    """What the table shows."""
    rooms = range(played.goals.shape[1])
    reached, detour = zip(*(detours(played, room) for room in rooms), strict=True)
    known = [[probed(memory, corner_of(played, room)) for room in rooms] for memory in played.memory]
    return Search(np.stack(reached, 1), np.stack(detour, 1), np.array(known))


def detours(played: Played, room: int) -> tuple[np.ndarray, np.ndarray]:
    """By sub-episode, (M,), in which share of the tasks the goal of a room was reached, and the mean steps beyond the
    shortest way from the goal before it where it was; not a number of nothing."""
    so_far = np.cumsum(played.reward > 0, 1)  # goals, and then steps on the last one
    steps = (so_far <= room).sum(1) - ((so_far < room).sum(1) if room else -1)
    x, y = np.moveaxis(played.goals, -1, 0)
    # Corridors are in the middle row, where the start is too.
    shortest = x[:, room] - x[:, room - 1] + 2 if room else x[:, 0] + np.abs(y[:, 0])
    reached = so_far[:, -1] > room
    sums = np.where(reached, steps - shortest, 0).sum(1)
    return reached.mean(1), np.where(reached.any(1), sums / np.maximum(reached.sum(1), 1), np.nan)


def corner_of(played: Played, room: int) -> np.ndarray:
    """(K,) which of its four corners the goal of a room is in, 0 to 3."""
    x, y = played.goals[:, room].T
    return 2 * (x > PERIOD * room) + (y > 0)


def probed(memory: np.ndarray, corner: np.ndarray) -> float:
    """Share of the held-out tasks in which a probe reads the corner (K,) from memories (K, F)."""
    probe = train_probe(memory[None, HELD_OUT:], corner[HELD_OUT:], 4, PROBE_UPDATES)
    return float((probe(memory[:HELD_OUT]).argmax(-1) == corner[:HELD_OUT]).mean())


def table(search: Search) -> list[str]:
    """A Markdown table."""
    lines = [
        "| sub-episode | room | goal reached | steps beyond the shortest way | corner known |",
        "|---|---|---|---|---|",
    ]
    for sub_episode, row in enumerate(zip(*search, strict=True), 1):
        for room, (reached, detour, known) in enumerate(zip(*row, strict=True), 1):
            steps = "-" if np.isnan(detour) else f"{detour:.2f}"
            lines.append(f"| {sub_episode} | {room} | {reached:.3f} | {steps} | {known:.2f} |")
    return lines


if __name__ == "__main__":
    run_script(main)
