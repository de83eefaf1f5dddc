"""The moving average of the weights, with which evaluations of MAMBA may act."""

from dataclasses import replace

import chex
import jax
import pytest

import envs
import mamba_jax as mj
from mamba_jax.algos import mamba
from mamba_jax.config import with_sections
from mamba_jax.policy import policy_names

DECAY = 0.25


def make(decay: float) -> mj.Algorithm:
    env = envs.make("point-wind", sub_episodes=1, length=8)
    optimizer = {"eval_decay": decay, "model_rate": 1e-2, "actor_rate": 1e-2, "behaviour_eps": 1e-12}
    sections = {"optimizer": optimizer, "data": {"train_ratio": 1 / 16}}  # updates to be seen, one a round
    config = with_sections(mj.preset("mamba", env, "debug"), sections)
    return mj.make("mamba", env, config)


@pytest.fixture(scope="module")
def rounds():
    """The learner before and after a round of one update."""
    algo = make(DECAY)
    assert algo.updates_per_round == 1
    state = jax.jit(algo.init)(jax.random.key(0))
    return state.learner, jax.jit(algo.train_step)(state)[0].learner


def test_the_average_moves_towards_the_newest_weights_at_every_update(rounds):
    before, after = rounds
    chex.assert_trees_all_equal(before.average, {"model": before.model, "actor": before.actor})
    expected = jax.tree.map(
        lambda old, new: DECAY * old + (1 - DECAY) * new, before.average, {"model": after.model, "actor": after.actor}
    )
    chex.assert_trees_all_close(after.average, expected, atol=1e-6)
    for name in after.average:
        with pytest.raises(AssertionError):
            chex.assert_trees_all_close(after.average[name], getattr(after, name), atol=1e-4)


def test_evaluations_act_with_the_average_and_collection_with_the_newest(rounds):
    newest, other = rounds[1], rounds[0]
    agent = mamba.make_agent(make(DECAY).env, make(DECAY).config)
    observation = {key: jax.random.normal(jax.random.key(1), (4, *shape)) for key, shape in agent.model.shapes.items()}
    carry = mamba.init_carry(agent, newest, 4)

    def action(learner: mamba.Learner, explore: bool) -> jax.Array:
        return mamba.act(agent, learner, carry, observation, jax.random.key(2), explore)[1]

    learner = replace(newest, average={"model": other.model, "actor": other.actor})
    chex.assert_trees_all_equal(action(learner, False), action(replace(other, average={}), False))
    chex.assert_trees_all_equal(action(learner, True), action(newest, True))


def test_a_policy_is_the_average_alone():
    names = policy_names(make(DECAY))
    assert any("average/actor" in name for name in names)
    assert not any(name.startswith(("learner/model", "learner/actor")) for name in names)
    assert not any("average" in name for name in policy_names(make(0.0)))
