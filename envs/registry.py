"""Names of the environments, their default protocols and `make`."""

from collections.abc import Callable
from typing import Any, NamedTuple

from envs.base import TaskEnvironment
from envs.escape_room import EscapeRoom
from envs.meta_episode import MetaEpisode
from envs.mjx.reacher import Reacher
from envs.point_robot import HalfCircle, PointWind
from envs.rooms import Rooms


class _Entry(NamedTuple):
    """build: from the options that the environment has. sub_episodes, length: the default protocol.

    subtasks: default number of sub-tasks and the least that is possible, or None where there are none.
    physics: the choices, the default first, or () where there is only one. boundary: the environment wants to know it.
    """

    build: Callable[..., TaskEnvironment]
    sub_episodes: int
    length: int
    subtasks: tuple[int, int] | None = None
    physics: tuple[str, ...] = ()
    boundary: bool = False


def _humanoid() -> TaskEnvironment:
    from envs.mjx.humanoid import HumanoidDir  # imports MuJoCo, which takes some seconds

    return HumanoidDir()


_ENTRIES = {
    "halfcircle": _Entry(HalfCircle, 3, 100),
    "point-wind": _Entry(PointWind, 3, 100),
    "escape-room": _Entry(EscapeRoom, 2, 60),
    "rooms": _Entry(Rooms, 2, 100, subtasks=(3, 2)),
    "reacher": _Entry(Reacher, 3, 300, subtasks=(1, 1), physics=("exact", "mjx"), boundary=True),
    "humanoid-dir": _Entry(_humanoid, 2, 200),
}


def names() -> tuple[str, ...]:
    """The names that `make` knows."""
    return tuple(_ENTRIES)


def default_subtasks(name: str) -> int | None:
    """Sub-tasks of an environment where `make` is not told their number; None if it has none, or is not known."""
    entry = _ENTRIES.get(name)
    return entry.subtasks[0] if entry and entry.subtasks else None


def make(
    name: str,
    *,
    subtasks: int | None = None,
    sub_episodes: int | None = None,
    length: int | None = None,
    train_tasks: int | None = None,
    boundary: str = "reset",
    physics: str | None = None,
) -> MetaEpisode:
    """Make a meta-episode environment by name; whatever is None takes the environment's default.

    name: one of `names()`. subtasks: number of rooms (at least 2) or of the reacher's goals (at least 1).
    sub_episodes, length: the protocol, N sub-episodes of at most T steps. train_tasks: train on this many tasks only.
    boundary: "reset" or "final", see `MetaEpisode`. physics: for the reacher, "exact" (the closed form) or "mjx".
    Raises ValueError for anything unknown, impossible or contradictory.
    """
    if name not in _ENTRIES:
        raise ValueError(f"Unknown environment {name!r}; choose one of: {', '.join(names())}.")
    entry = _ENTRIES[name]
    options: dict[str, Any] = _subtask_option(name, entry, subtasks) | _physics_option(name, entry, physics)
    return MetaEpisode(
        entry.build(**options, **({"boundary": boundary} if entry.boundary else {})),
        sub_episodes=entry.sub_episodes if sub_episodes is None else sub_episodes,
        length=entry.length if length is None else length,
        boundary=boundary,
        train_tasks=train_tasks,
        name=name,
        subtasks=options.get("subtasks"),
    )


def _subtask_option(name: str, entry: _Entry, subtasks: int | None) -> dict[str, int]:
    if entry.subtasks is None:
        if subtasks is not None:
            raise ValueError(f"{name} has no sub-tasks: leave out subtasks.")
        return {}
    default, least = entry.subtasks
    chosen = default if subtasks is None else subtasks
    if chosen < least:
        raise ValueError(f"{name} with {chosen} sub-tasks is impossible; choose {least} or more.")
    return {"subtasks": chosen}


def _physics_option(name: str, entry: _Entry, physics: str | None) -> dict[str, str]:
    if not entry.physics:
        if physics is not None:
            raise ValueError(f"{name} has only one kind of physics: leave out physics.")
        return {}
    chosen = entry.physics[0] if physics is None else physics
    if chosen not in entry.physics:
        raise ValueError(f"Unknown physics {chosen!r} for {name}; choose one of: {', '.join(entry.physics)}.")
    return {"physics": chosen}
