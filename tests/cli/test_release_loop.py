"""The stand-in for the releases' loop: its environment is HalfCircle, and without PyTorch it says what to do."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import release_loop

import envs


def test_its_task_is_halfcircle():
    env = envs.make("halfcircle", boundary="final")
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    task = release_loop.Task(np.random.default_rng(0))
    task.goal = np.asarray(state.params.goal, np.float64)
    toward = np.where(np.arange(env.num_steps) % 100 < 20, 0.49, 0.0)  # nearly to the goal, then rest
    actions = np.outer(toward, task.goal).astype(np.float32)
    _, rows = jax.lax.scan(lambda s, a: env.step(jax.random.key(1), s, a), state, jnp.asarray(actions))
    observed, rewards, done = zip(*(task.step(action) for action in actions), strict=True)
    np.testing.assert_allclose(np.stack(observed)[:, :2], rows.observation["state"], atol=1e-5)
    np.testing.assert_allclose(rewards, rows.reward, atol=1e-5)
    assert max(rewards) > 0.97 and min(rewards) == 0
    assert [i for i, over in enumerate(done) if over] == [env.num_steps - 1]
    assert [i + 1 for i, seen in enumerate(observed) if seen[2]] == [100, 200, 300]


def test_without_pytorch_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit) as stopped:
        release_loop.main([])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "release_loop.py: PyTorch is missing: install it with `pip install torch`.\n"
