"""Counting what an agent of Rooms-N remembers."""

import jax
import numpy as np
import pytest
import recall

import envs
import mamba_jax as mj

LENGTH = 40
CORNERS = ((0, -1), (0, 1), (2, -1), (2, 1))
GOALS = np.array([[[2, 1], [6, -1]], [[0, -1], [8, 1]]])
"""From the start 3 and 1 steps, and from there 6 and 10."""


def played(times: list[list[list[int]]]) -> recall.Played:
    """Rewards at these steps, counted from 1, by sub-episode and task."""
    reward = np.full((len(times), LENGTH, len(GOALS)), -0.1)
    for sub_episode, tasks in enumerate(times):
        for task, steps in enumerate(tasks):
            reward[sub_episode, np.array(steps, int) - 1, task] = 1.0
    return recall.Played(reward, GOALS, np.zeros((len(times), len(GOALS), 1)))


def test_tasks_are_played_by_sub_episode():
    env = envs.make("rooms", subtasks=2, length=12)
    algo = mj.make("rl2", env, mj.preset("rl2", env, size="debug"))
    program = jax.jit(lambda key: recall.play_tasks(algo, 16, algo.init(key), key))
    found = recall.Played(*jax.device_get(program(jax.random.key(0))))
    assert found.reward.shape == (2, 12, 16) and found.goals.shape == (16, 2, 2) and found.memory.shape[:2] == (2, 16)
    for room in range(2):
        cells = found.goals[:, room] - [recall.PERIOD * room, 0]
        assert {tuple(cell) for cell in cells} <= set(CORNERS)
    assert np.ptp(found.memory[0], 0).max() == 0  # nothing was seen that tells tasks apart


def test_detours_are_the_steps_beyond_the_shortest_way():
    found = played([[[5, 13, 14, 15], [1, 12]], [[3, 9], [2, 30]]])
    for room, means in ((0, [1.0, 0.5]), (1, [1.5, 9.0])):
        reached, detour = recall.detours(found, room)
        np.testing.assert_array_equal(reached, 1.0)
        np.testing.assert_array_equal(detour, means)


def test_goals_that_were_not_reached_do_not_count():
    found = played([[[3], []], [[3, 11], [1]]])
    for room, shares, means in ((0, [0.5, 1.0], [0.0, 0.0]), (1, [0.0, 0.5], [np.nan, 2.0])):
        reached, detour = recall.detours(found, room)
        np.testing.assert_array_equal(reached, shares)
        np.testing.assert_array_equal(detour, means)


def test_the_probe_reads_the_corners_that_the_memory_holds(monkeypatch):
    monkeypatch.setattr(recall, "HELD_OUT", 64)
    corner = np.random.default_rng(0).integers(0, 4, (256, 2))
    goals = np.array(CORNERS)[corner] + np.array([[0, 0], [recall.PERIOD, 0]])
    memory = np.stack([np.zeros((256, 8)), np.eye(4)[corner[:, 0]].repeat(2, 1)]).astype(np.float32)
    known = recall.study(recall.Played(np.full((2, LENGTH, 256), -0.1), goals, memory)).known
    assert known.shape == (2, 2) and known[1, 0] == 1.0
    assert known[0].max() < 0.5 and known[1, 1] < 0.5


def test_the_table_has_a_line_for_every_room():
    lines = recall.table(recall.Search(np.array([[1.0, 0.5]]), np.array([[2.0, np.nan]]), np.array([[0.25, 1.0]])))
    assert lines[2:] == ["| 1 | 1 | 1.000 | 2.00 | 0.25 |", "| 1 | 2 | 0.500 | - | 1.00 |"]


@pytest.mark.parametrize("words", [["nowhere"], []])
def test_bad_choices_are_usage_errors(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        recall.main(words)
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith("recall.py: ")
