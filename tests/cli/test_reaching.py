"""Counting which goals an agent of Reacher-1 finds."""

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
    lines = reaching.table(reaching.Played(np.zeros((2, 4, 3)), goal))
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["0 to 70", "110 to 140", "all"]
    assert lines[2] == "| 0 to 70 | 1 | 0.00, 0.00 | -, - | -, - | 0.0, 0.0 |"
    assert "| 3 |" in lines[-1]


def test_a_run_on_several_goals_is_refused(tmp_path, monkeypatch):
    env = envs.make("reacher", subtasks=2)
    run = type("Run", (), {"single": type("Algo", (), {"env": env})})
    monkeypatch.setattr(reaching, "best_policy", lambda path, environments: (run, None))
    with pytest.raises(ValueError, match="2 goals"):
        reaching.play_run(tmp_path)
