"""How far agents explore early in training: `python experiments/exploration.py --rows escape-room rooms-3`.

Trains algorithms that keep a replay of what they saw, several seeds at once, and counts the places that the collected
meta-episodes visit. Writes config.json, metrics.jsonl, summary.md and exploration.png; a row and algorithm that the
folder holds already is not trained again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from runtime import Parser, UsageError, configure_jax, one_sentence_errors, run_script, set_environment

ALGORITHMS = ("varibad", "hyperx")
QUANTITIES = {
    "return": "return of a collected meta-episode",
    "cells": "places visited in a meta-episode",
    "cells_so_far": "places visited since the start",
    "far": "share of meta-episodes that get {far}",
}


class Map(NamedTuple):
    """Where an environment's agent can be. centre, cell: (2,) the middle of one place and the width of every place, in
    units of the observed position. far: what only an explorer reaches, in words. is_far: positions (..., 2) -> (...)
    bool."""

    centre: tuple[float, float]
    cell: tuple[float, float]
    far: str
    is_far: Callable[[np.ndarray], np.ndarray]


def main(words: list[str]) -> int:
    """Runs a command line; returns the exit code."""
    set_environment(words)
    configure_jax()
    with one_sentence_errors("exploration.py", {ValueError: 2, OSError: 2}):
        options = parser().parse_args(words)
        maps = {row: make_map(row) for row in options.rows}
        identity = {"steps": options.steps, "seeds": options.seeds, "size": options.size}
        open_folder(options.out, ["experiments/exploration.py", *words], identity)
        for row in options.rows:
            for algo in options.algos:
                explore(row, algo, maps[row], options)
        write_summary(options.out)
    return 0


def parser() -> Parser:
    """The command line."""
    from options import at_least_one

    from mamba_jax.presets import SIZES

    found = Parser(prog="exploration.py", description="Count the places that agents visit early in training.")
    rows_help = "escape-room, or rooms-N (default: both, N = 3)"
    found.add_argument("--rows", nargs="+", default=["escape-room", "rooms-3"], metavar="ROW", help=rows_help)
    found.add_argument("--algos", nargs="+", default=ALGORITHMS, choices=ALGORITHMS, help="default: both")
    steps_help = "environment steps of a seed (default: 1,000,000)"
    found.add_argument("--steps", type=at_least_one, default=1_000_000, metavar="S", help=steps_help)
    found.add_argument("--seeds", type=at_least_one, default=3, metavar="K", help="at once in one program (default: 3)")
    found.add_argument("--size", choices=SIZES, default="small", help="default: small")
    out_help = "default: results/exploration"
    found.add_argument("--out", type=Path, default=Path("results/exploration"), metavar="DIR", help=out_help)
    return found


def make_map(row: str) -> Map:
    """The map of a row such as "rooms-3". Raises UsageError for an environment without one."""
    from options import split_row

    name, rooms = split_row(row)
    if name == "escape-room" and rooms is None:
        return Map((0.0, 0.0), (0.1, 0.1), "out of the room", lambda x: np.hypot(x[..., 0], x[..., 1]) > 1)
    if name == "rooms" and rooms is not None and rooms > 1:
        width = 6 * rooms - 3
        start = (4 / width - 1, 1 / 3)
        last_room = 2 * (6 * (rooms - 1) + 1.5) / width - 1  # half a cell left of it
        return Map(start, (2 / width, 2 / 3), "into the last room", lambda x: x[..., 0] > last_room)
    raise UsageError(f"{row} has no map: choose escape-room or rooms-N.")


def open_folder(folder: Path, command: list[str], identity: dict[str, Any]) -> None:
    """Makes the folder, or checks that it belongs to the same experiment; raises UsageError where it does not.

    command: the script and its arguments.
    """
    from mamba_jax.run_folder import commit, hardware, versions, write_atomically

    config = folder / "config.json"
    if config.exists():
        if json.loads(config.read_text()).get("identity") != identity:
            raise UsageError(f"{folder} holds another experiment: choose another --out.")
        return
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds other files: choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    description = {"identity": identity, "command": command, "commit": commit()}
    description |= {"versions": versions(), "hardware": hardware()}
    write_atomically(config, json.dumps(description, indent=2))


def explore(row: str, algo: str, layout: Map, options: Any) -> None:
    """Trains one algorithm on a row and adds its records to the folder once it is through."""
    from mamba_jax.log import read_lines, read_metrics
    from mamba_jax.run_folder import write_atomically

    path = options.out / "metrics.jsonl"
    if any(record["row"] == row and record["algo"] == algo for record in read_metrics(path)):
        print(f"{row}, {algo}: done", flush=True)
        return
    start, lines = time.monotonic(), []
    for record in train(row, algo, layout, options):
        full = {"row": row, "algo": algo} | record | {"seconds": round(time.monotonic() - start, 2)}
        lines.append(json.dumps(full) + "\n")
    write_atomically(path, "".join(read_lines(path) + lines))
    print(f"{row}, {algo}: {len(lines)} rounds in {time.monotonic() - start:.0f} s", flush=True)


def train(row: str, algo: str, layout: Map, options: Any) -> Iterator[dict[str, Any]]:
    """A record for every round: steps, and by seed the return and the counts of places."""
    import jax
    from options import split_row

    import envs
    import mamba_jax as mj

    name, subtasks = split_row(row)
    env = envs.make(name, subtasks=subtasks)
    single = mj.make(algo, env, mj.preset(algo, env, size=options.size))
    trainer = mj.over_seeds(single, options.seeds)

    def one_round(state):
        state, metrics = trainer.train_step(state)
        return state, metrics["collect/return"], jax.vmap(newest_positions)(state.replay)

    step = jax.jit(one_round, donate_argnums=0)
    state = jax.jit(trainer.init)(jax.random.key(0))
    visited: list[set[int]] = [set() for _ in range(options.seeds)]
    for round in range(1, -(-options.steps // single.steps_per_round) + 1):
        state, returns, positions = step(state)
        record = {"env_steps": round * single.steps_per_round, "return": np.asarray(returns, float).tolist()}
        yield record | count(layout, np.asarray(positions), visited)


def newest_positions(replay: Any) -> Any:
    """Observed positions (lanes, T + 1, 2) of the meta-episodes that were inserted last."""
    seen = replay.rows.observation["seen"]
    return seen[:, (replay.inserted - 1) % seen.shape[1], :, :2]


def count(layout: Map, positions: np.ndarray, visited: list[set[int]]) -> dict[str, list[float]]:
    """Places in positions (seeds, lanes, rows, 2), by seed. visited: places of each seed so far, which it adds to."""
    cell = np.rint((positions - np.array(layout.centre)) / np.array(layout.cell)).astype(np.int64)
    places = np.sort(cell[..., 0] * 2**20 + cell[..., 1], -1)
    distinct = 1 + (np.diff(places, axis=-1) != 0).sum(-1)
    for found, own in zip(visited, places, strict=True):
        found.update(np.unique(own).tolist())
    return {
        "cells": distinct.mean(-1).tolist(),
        "cells_so_far": [len(found) for found in visited],
        "far": layout.is_far(positions).any(-1).mean(-1).tolist(),
    }


def write_summary(folder: Path) -> None:
    """Writes summary.md and exploration.png of all records in the folder."""
    from mamba_jax.log import read_metrics

    records = read_metrics(folder / "metrics.jsonl")
    lines = [
        "| environment | algorithm | until step | return | places in a meta-episode | places since the start "
        "| gets far | time, all seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, algo in dict.fromkeys((record["row"], record["algo"]) for record in records):
        own = [record for record in records if (record["row"], record["algo"]) == (row, algo)]
        for share in (0.25, 0.5, 1.0):
            part = [record for record in own if record["env_steps"] <= share * own[-1]["env_steps"]]
            if part:
                lines.append(f"| {row} | {algo} | {part[-1]['env_steps']:,} | {' | '.join(figures(part))} |")
    (folder / "summary.md").write_text("\n".join(lines) + "\n")
    draw(records, folder / "exploration.png")
    print(f"Wrote {folder / 'summary.md'} and {folder / 'exploration.png'}.")


def figures(part: list[dict[str, Any]]) -> list[str]:
    """The figures of records as mean ± deviation over seeds: means over the rounds, and places since the start."""

    def spread(values: np.ndarray, digits: int, factor: float = 1.0) -> str:
        return f"{factor * values.mean():.{digits}f} ± {factor * values.std():.{digits}f}"

    mean = {name: np.mean([record[name] for record in part], 0) for name in QUANTITIES}
    so_far = np.array(part[-1]["cells_so_far"])
    shown = [spread(mean["return"], 1), spread(mean["cells"], 1), spread(so_far, 0), spread(mean["far"], 1, 100) + " %"]
    return [*shown, f"{part[-1]['seconds'] / 60:.1f} min"]


def draw(records: list[dict[str, Any]], path: Path) -> None:
    """Draws a panel for every row and quantity: mean over seeds of each algorithm, in a band of one deviation."""
    from mamba_jax.curves import grid

    rows = list(dict.fromkeys(record["row"] for record in records))
    figure, panels = grid(len(rows) * len(QUANTITIES), columns=len(QUANTITIES), size=(4, 3.2))
    places = [(row, name) for row in rows for name in QUANTITIES]
    for panel, (row, name) in zip(panels, places, strict=True):
        for number, algo in enumerate(ALGORITHMS):
            own = [record for record in records if (record["row"], record["algo"]) == (row, algo)]
            if own:
                steps, values = [record["env_steps"] for record in own], np.array([record[name] for record in own])
                mean, deviation = values.mean(1), values.std(1)
                panel.plot(steps, mean, color=f"C{number}", label=algo)
                panel.fill_between(steps, mean - deviation, mean + deviation, color=f"C{number}", alpha=0.2)
        panel.set_title(f"{row}: {QUANTITIES[name].format(far=make_map(row).far)}", fontsize="small")
        panel.set_xlabel("environment steps")
    panels[0].legend(fontsize="small")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run_script(main)
