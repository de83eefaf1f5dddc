"""Meta-RL task families in JAX: gymnax environments with a task in their parameters, and meta-episodes over them."""

from envs.base import TaskEnvironment
from envs.escape_room import EscapeRoom
from envs.meta_episode import MetaEpisode, MetaState, TimeStep
from envs.mjx.reacher import Reacher
from envs.point_robot import HalfCircle, PointWind
from envs.registry import default_subtasks, make, names
from envs.rooms import Rooms

__all__ = [
    "EscapeRoom",
    "HalfCircle",
    "HumanoidDir",
    "MetaEpisode",
    "MetaState",
    "PointWind",
    "Reacher",
    "Rooms",
    "TaskEnvironment",
    "TimeStep",
    "default_subtasks",
    "make",
    "names",
]


def __getattr__(name: str):
    """`HumanoidDir` is imported when it is asked for, because it imports MuJoCo."""
    if name == "HumanoidDir":
        from envs.mjx.humanoid import HumanoidDir

        return HumanoidDir
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
