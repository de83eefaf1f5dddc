"""Reading the belief over the task from an agent's memory."""

import belief
import imageio.v3 as imageio
import jax
import numpy as np
import pytest

import envs

LENGTH, FOUND = 10, 6


@pytest.fixture(scope="module")
def played() -> belief.Played:
    """Two sub-episodes of ten steps in which the memory knows the direction once reward was met in step 6."""
    tasks, steps = belief.HELD_OUT + 128, 2 * LENGTH - 1
    direction = np.random.default_rng(0).uniform(0, np.pi, tasks)
    reward = np.zeros((steps, tasks))
    reward[FOUND:] = 1.0
    reward[:, 1] = 0.0
    knows = np.cumsum(reward, 0) > 0
    place = np.stack([np.cos(direction), np.sin(direction)], -1)
    return belief.Played(
        memory=np.where(knows[..., None], place, 0.0).astype(np.float32),
        position=np.broadcast_to(place * 0.5, (steps, tasks, 2)),
        reward=reward,
        sub_episode=np.broadcast_to(((np.arange(steps) + 1) // LENGTH)[:, None], (steps, tasks)),
        direction=direction,
        returns=np.broadcast_to([[LENGTH - FOUND], [LENGTH]], (2, tasks)),
    )


def test_the_probe_reads_what_the_memory_knows_and_no_more(played, tmp_path, monkeypatch):
    monkeypatch.setattr(belief, "UPDATES", 300)
    beliefs, nats = belief.read_beliefs(played)
    assert beliefs.shape == (2 * LENGTH - 1, belief.HELD_OUT, belief.BINS)
    np.testing.assert_allclose(beliefs.sum(-1), 1.0, rtol=1e-4)
    truth = np.minimum((played.direction / np.pi * belief.BINS).astype(int), belief.BINS - 1)[: belief.HELD_OUT]
    near = np.abs(beliefs.argmax(-1) - truth) <= 2
    assert near[FOUND:, 2:].mean() > 0.9 and near[:FOUND].mean() < 0.4
    assert len(nats) == 2 and nats[1] < np.log(belief.BINS) - 1
    belief.draw_moments(played, beliefs, 0, LENGTH, tmp_path / "belief.png")
    belief.animate(played, beliefs, 0, tmp_path / "belief.gif")
    assert (tmp_path / "belief.png").stat().st_size > 5000
    assert len(imageio.imread(tmp_path / "belief.gif")) == len(range(0, 2 * LENGTH - 1, belief.FRAME_EVERY))


def test_returns_are_told_by_direction(played):
    first = played.direction < np.pi / belief.SECTORS
    lazy = played._replace(returns=np.where(first, 0.0, played.returns))
    lines = belief.returns_by_sector(lazy)
    assert len(lines) == belief.SECTORS and lines[0].endswith("sub-episode 0.0, 0.0.")
    assert f"{first.sum()} tasks" in lines[0] and "sub-episode 4.0, 10.0." in lines[3]


def test_the_task_shown_is_one_that_was_found(played):
    late = played._replace(reward=played.reward.copy())
    late.reward[: FOUND + 2, 5] = 0.0
    assert belief.choose_task(late) == 5
    assert belief.choose_task(played) != 1


@pytest.mark.parametrize("words", [["nowhere"], ["nowhere", "--tasks", "10"]])
def test_bad_choices_are_usage_errors(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        belief.main(words)
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith("belief.py: ")


@pytest.mark.parametrize("name", belief.DIRECTIONS)
def test_directions_are_those_of_the_tasks(name):
    env_states, _ = envs.make(name).reset_lanes(jax.random.key(0), 50, fresh=True)
    params = env_states.params
    direction = belief.DIRECTIONS[name](params)
    assert direction.shape == (50,) and direction.std() > 0.5
    assert direction.min() > 0 and direction.max() < np.pi
    if hasattr(params, "goal"):
        np.testing.assert_allclose(params.goal, np.stack([np.cos(direction), np.sin(direction)], -1), atol=1e-6)
