"""Learning curves: evaluation returns over environment steps, beside what is known from elsewhere."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mamba_jax.log import read_metrics
from mamba_jax.reference import reference
from mamba_jax.run_folder import RunFolder, setting


class Curve(NamedTuple):
    """Evaluations of one run, or of several that differ only in their seeds.

    task: (environment, sub-tasks, sub-episodes, length). label: algorithm, and the size unless it is the paper's.
    steps: (points,) environment steps. returns: (points, seeds) of whole meta-episodes. setting: what runs share that
    differ only in their seeds. seed: of the first run. path: folder of the first run.
    """

    task: tuple[str, int | None, int, int]
    algo: str
    label: str
    steps: np.ndarray
    returns: np.ndarray
    setting: dict[str, Any]
    seed: int
    path: Path


def read_curve(folder: RunFolder) -> Curve:
    """The curve of one run; raises FolderError if the folder is no run's, ValueError if nothing was evaluated yet."""
    description = folder.read_config()
    records = [record for record in read_metrics(folder.metrics) if record.get("eval/return_mean") is not None]
    if not records:
        raise ValueError(f"{folder.path} has no evaluation yet.")
    returns = [record.get("eval/return_mean/seeds", [record["eval/return_mean"]]) for record in records]
    options, environment = description["options"], description["environment"]
    task = (options["env"], environment["subtasks"], environment["sub_episodes"], environment["length"])
    label = options["algo"] + ("" if options["size"] == "paper" else f" ({options['size']})")
    return Curve(
        task,
        options["algo"],
        label,
        steps=np.array([record["env_steps"] for record in records]),
        returns=np.array(returns, float),
        setting=setting(description),
        seed=options["seed"],
        path=folder.path,
    )


def merge(curves: list[Curve]) -> Curve:
    """Curves of runs that differ only in their seeds as one, over the steps that all of them reached."""
    if len(curves) == 1:
        return curves[0]
    steps = np.unique(np.concatenate([curve.steps for curve in curves]))
    first, last = (bound([edge(curve.steps) for curve in curves]) for bound, edge in ((max, np.min), (min, np.max)))
    steps = steps[(steps >= first) & (steps <= last)]
    columns = [np.interp(steps, curve.steps, column) for curve in curves for column in curve.returns.T]
    return curves[0]._replace(steps=steps, returns=np.stack(columns, 1))


def grouped(curves: Iterable[Curve]) -> dict[Any, dict[str, Curve]]:
    """task -> label -> curve, those of runs that differ only in their seeds as one; where others have the same label,
    or a seed is there twice, a path tells them apart."""
    groups: dict[Any, list[list[Curve]]] = {}
    for curve in curves:
        own = groups.setdefault(curve.task, [])
        alike = [
            found
            for found in own
            if found[0].setting == curve.setting and curve.seed not in {other.seed for other in found}
        ]
        if alike:
            alike[0].append(curve)
        else:
            own.append([curve])
    return {task: labelled([merge(found) for found in own]) for task, own in groups.items()}


def labelled(curves: list[Curve]) -> dict[str, Curve]:
    """Curves by their labels, with a path where several have the same."""
    counts = Counter(curve.label for curve in curves)
    return {curve.label if counts[curve.label] == 1 else f"{curve.label}, {curve.path}": curve for curve in curves}


def draw(curves: Iterable[Curve], path: Path) -> None:
    """Draws one panel per task, one line per algorithm: the mean over seeds in a band of one standard deviation.

    Dashed lines are the paper's figures for the algorithms shown, the dotted line the ceiling.
    """
    groups = grouped(curves)
    figure, panels = grid(len(groups), columns=3, size=(6, 4))
    for panel, (task, by_label) in zip(panels, groups.items(), strict=True):
        draw_panel(panel, task, by_label)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def grid(count: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, each of `size` (width, height) in inches, in rows of at most `columns`."""
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in panels[count:]:
        panel.set_axis_off()
    return figure, panels[:count]


def draw_panel(panel: Axes, task: tuple[str, int | None, int, int], by_label: dict[str, Curve]) -> None:
    """Draws the curves of one task."""
    env, subtasks, sub_episodes, length = task
    known = reference(*task)
    for number, (label, curve) in enumerate(by_label.items()):
        colour, seeds = f"C{number}", curve.returns.shape[1]
        mean, spread = curve.returns.mean(1), curve.returns.std(1)
        panel.plot(curve.steps, mean, color=colour, label=f"{label}, {seeds} seed{'s' if seeds > 1 else ''}")
        if seeds > 1:
            panel.fill_between(curve.steps, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
        if curve.algo in known.paper:
            value = known.paper[curve.algo].mean
            panel.axhline(value, color=colour, linestyle="--", linewidth=1, label=f"{curve.algo} in the paper, {value}")
    if known.ceiling is not None:
        panel.axhline(known.ceiling, color="black", linestyle=":", linewidth=1, label=f"ceiling, {known.ceiling}")
    panel.set_title(env + (f", {subtasks} sub-tasks" if subtasks else "") + f": {sub_episodes} x {length} steps")
    panel.set_xlabel("environment steps")
    panel.set_ylabel("return of a meta-episode in fresh tasks")
    panel.legend(fontsize="small")
