"""Counting which goals an agent finds, and telling where it stays."""

import jax
import numpy as np
import pytest
import reaching

import envs
import mamba_jax as mj


def test_tasks_are_played_by_sub_episode():
    env = envs.make("reacher", sub_episodes=2, length=5)
    algo = mj.make("rl2", env, mj.preset("rl2", env, size="debug"))
    program = jax.jit(lambda key: reaching.play_tasks(algo, 16, algo.init(key), key))
    played = reaching.Played(*jax.device_get(program(jax.random.key(0))))
    assert played.reward.shape == (2, 5, 16) and played.goal.shape == (16, 2)
    distance = np.linalg.norm(played.goal, axis=-1)
    assert distance.max() <= 0.195 and np.ptp(distance) > 0.01


def test_positions_of_a_point_robot_are_those_of_its_rewards():
    env = envs.make("point-wind", sub_episodes=2, length=40)
    algo = mj.make("rl2", env, mj.preset("rl2", env, size="debug"))
    program = jax.jit(lambda key: reaching.play_tasks(algo, 64, algo.init(key), key))
    played = reaching.Played(*jax.device_get(program(jax.random.key(0))))
    assert played.position.shape == (2, 40, 64, 2) and played.goal.shape == (64, 2)
    distance = np.linalg.norm(played.position - played.goal, axis=-1)[:, :-1]
    paid = played.reward[:, :-1]
    np.testing.assert_allclose(paid, np.where(distance <= 0.2, 1 - distance, 0), atol=1e-5)


def test_staying_tells_offset_from_sway():
    """One robot 0.03 and 0.04 beside its goal; one that swings by 0.1 about it; two that do not stay for long."""
    goal = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    steps = reaching.SETTLING + 25  # of which the last is the next start
    position = np.broadcast_to(goal, (1, steps, 4, 2)).copy()
    position[0, :, 0] += 0.03, 0.04
    position[0, :, 1, 1] += 0.1 * (-1.0) ** np.arange(steps)
    position[0, : reaching.SETTLING] = position[0, -1] = 9.0
    reward = np.ones((1, steps, 4))
    reward[0, :-10, 2] = reward[0, :, 3] = 0.0
    alone = [reaching.staying(reward[..., [k]], position[..., [k], :], goal[[k]]) for k in range(4)]
    np.testing.assert_allclose(alone[0], [[0.05], [0.05], [0.0]], atol=1e-12)
    np.testing.assert_allclose(alone[1], [[0.1], [0.0], [0.1]], atol=1e-12)
    assert np.isnan(alone[2]).all() and np.isnan(alone[3]).all()
    np.testing.assert_allclose(reaching.staying(reward, position, goal), [[0.075], [0.025], [0.05]], atol=1e-12)


def test_study_tells_search_from_staying():
    """Two tasks: found at step 2 and left for one of two steps; found in the second sub-episode only, at step 4."""
    reward = np.zeros((2, 4, 2))
    reward[0, :, 0] = -0.01, 0.5, -0.01, 0.75
    reward[1, :, 0] = 0.5, 0.5, 0.5, 0.5
    reward[1, 3, 1] = 1.0
    reached = reaching.study(reward)
    np.testing.assert_allclose(reached.found, [0.5, 1.0])
    np.testing.assert_allclose(reached.steps, [2.0, 2.5])
    np.testing.assert_allclose(reached.kept, [0.5, 1.0])
    np.testing.assert_allclose(reached.total, [0.615, 1.5])


def test_nothing_found_is_told_as_such():
    reached = reaching.study(np.full((3, 4, 2), -0.02))
    np.testing.assert_array_equal(reached.found, 0.0)
    assert np.isnan(reached.steps).all() and np.isnan(reached.kept).all()


def test_the_table_has_a_row_for_every_distance_that_occurs():
    goal = np.array([[0.0, 0.05], [0.12, 0.0], [0.0, -0.125]])
    lines = reaching.table(reaching.Played(np.zeros((2, 4, 3)), goal), reaching.PLACES["reacher"])
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["0 to 70", "110 to 140", "all"]
    assert lines[2] == "| 0 to 70 | 1 | 0.00, 0.00 | -, - | -, - | 0.0, 0.0 |"
    assert "| 3 |" in lines[-1]


def test_the_table_of_a_point_robot_has_a_row_for_every_direction_that_occurs():
    goal = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.01]])
    played = reaching.Played(np.ones((1, 40, 3)), goal, np.broadcast_to(goal, (1, 40, 3, 2)))
    lines = reaching.table(played, reaching.PLACES["point-wind"])
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["0 to 30", "90 to 120", "150 to 180", "all"]
    assert lines[0].endswith("| distance, then | offset | sway |") and lines[1].count("---") == 9
    assert lines[-1] == "| all | 3 | 1.00 | 1 | 1.00 | 40.0 | 0.000 | 0.000 | 0.000 |"


def test_a_run_on_several_goals_is_refused(tmp_path, monkeypatch):
    env = envs.make("reacher", subtasks=2)
    run = type("Run", (), {"single": type("Algo", (), {"env": env})})
    monkeypatch.setattr(reaching, "best_policy", lambda path, environments: (run, None))
    with pytest.raises(ValueError, match="2 goals"):
        reaching.play_run(tmp_path)
