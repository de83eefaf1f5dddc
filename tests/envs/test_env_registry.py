"""Names, defaults and errors of `envs.make`."""

import subprocess
import sys

import pytest

import envs

PROTOCOLS = {
    "halfcircle": (3, 100),
    "point-wind": (3, 100),
    "escape-room": (2, 60),
    "rooms": (2, 100),
    "reacher": (3, 300),
    "humanoid-dir": (2, 200),
}


def test_names():
    assert envs.names() == tuple(PROTOCOLS)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_default_protocol(name):
    env = envs.make(name)
    assert (env.sub_episodes, env.length) == PROTOCOLS[name]
    assert env.num_steps == env.sub_episodes * env.length
    assert env.name == name


def test_options():
    env = envs.make("rooms", subtasks=7, sub_episodes=4, length=5, train_tasks=9, boundary="final")
    assert (env.env.num_rooms, env.sub_episodes, env.length, env.train_tasks, env.boundary) == (7, 4, 5, 9, "final")
    assert envs.make("rooms").env.num_rooms == 3
    assert envs.make("reacher").env.num_goals == 1
    assert envs.make("reacher", boundary="final").env.carry_velocity
    assert not envs.make("reacher").env.carry_velocity


WRONG = [
    ("walker", {}, "Unknown environment 'walker'; choose one of: halfcircle, "),
    ("halfcircle", {"subtasks": 2}, "halfcircle has no sub-tasks: leave out subtasks"),
    ("rooms", {"subtasks": 1}, "rooms with 1 sub-tasks is impossible; choose 2 or more"),
    ("reacher", {"subtasks": 0}, "choose 1 or more"),
    ("rooms", {"physics": "mjx"}, "rooms has only one kind of physics: leave out physics"),
    ("reacher", {"physics": "bullet"}, "Unknown physics 'bullet' for reacher; choose one of: exact, mjx"),
    ("rooms", {"length": 0}, "length is 0; choose 1 or more"),
    ("rooms", {"sub_episodes": -1}, "sub_episodes is -1; choose 1 or more"),
    ("rooms", {"train_tasks": 0}, "train_tasks is 0; choose 1 or more"),
    ("rooms", {"boundary": "none"}, "Unknown boundary 'none'; choose one of: reset, final"),
]


@pytest.mark.parametrize(("name", "options", "message"), WRONG, ids=[f"{n}-{'-'.join(o)}" for n, o, _ in WRONG])
def test_errors_say_what_to_do(name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        envs.make(name, **options)
    assert "\n" not in str(error.value)


def test_a_reacher_by_itself_refuses_other_physics():
    with pytest.raises(ValueError, match="choose one of: exact, mjx"):
        envs.Reacher(physics="bullet")


def test_public_names_exist():
    for name in envs.__all__:
        assert getattr(envs, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = envs.Nothing


def test_import_leaves_mujoco_alone():
    code = "import sys, envs; envs.make('reacher'); assert 'mujoco' not in sys.modules; print('done')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "done\n"
