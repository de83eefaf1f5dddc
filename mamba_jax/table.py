"""The table of results: finished runs beside the paper's figures and the ceilings.

The interquartile mean and its bootstrap interval over seeds are those of Agarwal et al., "Deep Reinforcement Learning
at the Edge of the Statistical Precipice" (NeurIPS 2021), for one task.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from scipy import stats

from mamba_jax.curves import grid
from mamba_jax.reference import ALGORITHMS, Reference, reference
from mamba_jax.run_folder import RunFolder, in_words, setting

RESAMPLES = 10_000


class Entry(NamedTuple):
    """A finished run, or runs that differ in their seeds alone. row: environment and sub-tasks as in "rooms-3".
    scores: (seeds,) mean return over fresh tasks of the policy that evaluated best in training, as in the paper.
    last_scores: (seeds,) the same of the policy at the end. by_sub_episode: means over seeds, of the best. steps,
    updates: of one seed. seconds: of running, all seeds together. hardware: in words. setting: what runs of one entry
    share. seeds: of each run its seed and how many it trained. paths: folders."""

    row: str
    algo: str
    size: str
    scores: np.ndarray
    last_scores: np.ndarray
    by_sub_episode: tuple[float, ...]
    steps: int
    updates: int
    seconds: float
    hardware: str
    known: Reference
    setting: dict[str, Any]
    seeds: tuple[tuple[int, int], ...]
    paths: tuple[Path, ...]

    @property
    def path(self) -> Path:
        """The folder of its first run."""
        return self.paths[0]


class Interval(NamedTuple):
    """Interquartile mean over seeds with the ends of its 95% bootstrap interval."""

    mean: float
    low: float
    high: float


def interquartile_mean(scores: np.ndarray | Sequence[float]) -> Interval:
    """Interquartile mean of scores (seeds,), percentile bootstrap over seeds; of one seed the interval is empty."""
    values = np.asarray(scores, float)
    mean = float(stats.trim_mean(values, 0.25))
    if len(values) == 1:
        return Interval(mean, mean, mean)
    draws = np.random.default_rng(0).choice(values, (RESAMPLES, len(values)))
    low, high = np.quantile(stats.trim_mean(draws, 0.25, axis=1), [0.025, 0.975])
    return Interval(mean, float(low), float(high))


def read_entry(folder: RunFolder) -> Entry:
    """The result of a finished run; raises FolderError or OSError where there is none."""
    description = folder.read_config()
    result = folder.read_evaluation()
    options, env = description["options"], description["environment"]
    return Entry(
        row=env["name"] if env["subtasks"] is None else f"{env['name']}-{env['subtasks']}",
        algo=options["algo"],
        size=options["size"],
        scores=scores_of(result["best"]),
        last_scores=scores_of(result["last"]),
        by_sub_episode=tuple(result["return_per_sub_episode"]),
        steps=result["env_steps"],
        updates=result["updates"],
        seconds=result["seconds"],
        hardware=in_words(description["hardware"]),
        known=reference(options["env"], env["subtasks"], env["sub_episodes"], env["length"]),
        setting=setting(description),
        seeds=((options["seed"], options["seeds"]),),
        paths=(folder.path,),
    )


def scores_of(test: dict[str, Any]) -> np.ndarray:
    """(seeds,) mean returns of a test in eval.json."""
    return np.array([seed["return_mean"] for seed in test.get("seeds", [test])])


def read_entries(root: Path) -> list[Entry]:
    """All finished runs in the folders of `root`, by row, algorithm and size; folders of no run are left out."""
    folders = [RunFolder(path.parent) for path in root.glob("*/eval.json")]
    found = [read_entry(folder) for folder in folders if folder.is_run()]
    order = {name: index for index, name in enumerate(ALGORITHMS)}
    return sorted(found, key=lambda entry: (entry.row, -order.get(entry.algo, -1), entry.size, entry.path.name))


def over_seeds(entries: Iterable[Entry]) -> list[Entry]:
    """Entries in their order, those that differ in their seeds alone as one; a repeated seed keeps an entry apart. Two
    runs of several seeds that begin with the same one share the agents that both have."""
    found: list[Entry] = []
    for entry in entries:
        for index, other in enumerate(found):
            if other.setting == entry.setting and not drawn_from(other) & drawn_from(entry):
                found[index] = combine(other, entry)
                break
        else:
            found.append(entry)
    return found


def drawn_from(entry: Entry) -> set[tuple[int, bool]]:
    """What tells the agents of its runs apart: the seed, and whether several agents were drawn from it."""
    return {(seed, count > 1) for seed, count in entry.seeds}


def combine(one: Entry, other: Entry) -> Entry:
    """Two entries of one setting as one."""
    counts = [len(one.scores), len(other.scores)]
    means = np.average([one.by_sub_episode, other.by_sub_episode], axis=0, weights=counts)
    same = one.hardware == other.hardware
    return one._replace(
        scores=np.concatenate([one.scores, other.scores]),
        last_scores=np.concatenate([one.last_scores, other.last_scores]),
        by_sub_episode=tuple(means.tolist()),
        seconds=one.seconds + other.seconds,
        hardware=one.hardware if same else f"{one.hardware}; {other.hardware}",
        seeds=one.seeds + other.seeds,
        paths=one.paths + other.paths,
    )


def duration(seconds: float) -> str:
    """Seconds as minutes or hours."""
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def mean_and_deviation(values: np.ndarray) -> str:
    """Mean and deviation over seeds (seeds,) in words."""
    if len(values) == 1:
        return f"{values[0]:.1f} (1 seed)"
    return f"{values.mean():.1f} ± {values.std():.1f} ({len(values)} seeds)"


def millions(steps: int) -> str:
    """Steps in words."""
    return f"{steps / 1e6:.1f}M"


def markdown(entries: Iterable[Entry], link_to: Path) -> str:
    """A table with one line per entry; links to the runs' folders are relative to the folder `link_to`."""
    lines = [
        "| environment | algorithm, size | return ± std over seeds | IQM [95% interval] | by sub-episode "
        "| last policy | paper (its steps) | ceiling | steps | time, all seeds | run |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in entries:
        paper, iqm = entry.known.paper.get(entry.algo), interquartile_mean(entry.scores)
        seeds = len(entry.scores)
        cells = [
            entry.row,
            f"{entry.algo}, {entry.size}",
            mean_and_deviation(entry.scores),
            f"{iqm.mean:.1f} [{iqm.low:.1f}, {iqm.high:.1f}]" if seeds > 1 else "-",
            ", ".join(f"{value:.1f}" for value in entry.by_sub_episode),
            f"{entry.last_scores.mean():.1f}" + (f" ± {entry.last_scores.std():.1f}" if seeds > 1 else ""),
            f"{paper.mean} ± {paper.std} ({millions(paper.steps)})" if paper else "-",
            str(entry.known.ceiling or "-"),
            millions(entry.steps),
            f"{duration(entry.seconds)}, {entry.hardware}",
            links(entry.paths, link_to),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def links(paths: Sequence[Path], link_to: Path) -> str:
    """Links to folders, relative to the folder `link_to`: one under its name, several under numbers."""
    labels = [paths[0].name] if len(paths) == 1 else range(1, len(paths) + 1)
    targets = (Path(os.path.relpath(path, link_to)).as_posix() for path in paths)
    return ", ".join(f"[{label}]({target})" for label, target in zip(labels, targets, strict=True))


def draw(entries: Sequence[Entry], path: Path) -> None:
    """Draws a panel per environment: our runs with their seeds, the paper's figure dashed, the ceiling dotted."""
    rows = sorted({entry.row for entry in entries})
    figure, panels = grid(len(rows), columns=4, size=(3.2, 3.4))
    for panel, row in zip(panels, rows, strict=True):
        draw_panel(panel, [entry for entry in entries if entry.row == row])
        panel.set_title(row)
    panels[0].set_ylabel("return (dashed: paper, dotted: ceiling)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def draw_panel(panel: Axes, entries: Sequence[Entry]) -> None:
    """Draws the runs of one environment."""
    for index, entry in enumerate(entries):
        interval = interquartile_mean(entry.scores)
        panel.bar(index, interval.mean, color=f"C{index}", alpha=0.6)
        panel.vlines(index, interval.low, interval.high, color="black")
        panel.plot(np.full(len(entry.scores), index), entry.scores, "k.", markersize=4)
        if entry.algo in entry.known.paper:
            paper = entry.known.paper[entry.algo].mean
            panel.hlines(paper, index - 0.45, index + 0.45, color="black", linestyle="--", linewidth=1)
    if entries[0].known.ceiling is not None:
        panel.axhline(entries[0].known.ceiling, color="black", linestyle=":", linewidth=1)
    panel.set_xticks(range(len(entries)), [f"{entry.algo}\n{entry.size}" for entry in entries], fontsize="small")
