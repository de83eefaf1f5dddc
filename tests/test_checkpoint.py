"""Policies taken from states, and checkpoints that are whole, half-written or damaged."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny

import envs
import mamba_jax as mj
from mamba_jax.checkpoint import CheckpointError, Checkpoints
from mamba_jax.evaluate import evaluate
from mamba_jax.policy import choose_better, evaluate_policy, from_arrays, policy_names, take_policy, to_arrays


def shapes_of(arrays):
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_states_survive_as_arrays():
    """Typed keys become their data, leaves without elements are left out; both come back."""
    algo = tiny()
    state = algo.init(jax.random.key(3))
    arrays = to_arrays(state)
    assert "nothing" not in arrays and arrays["key"].dtype == jnp.uint32
    again = from_arrays(jax.eval_shape(algo.init, jax.random.key(0)), arrays)
    assert again.key.dtype == state.key.dtype and again.nothing.shape == state.nothing.shape
    assert_same(to_arrays(again), arrays)


def test_policy_is_what_acting_reads():
    assert policy_names(tiny()) == ("gain",)
    env = envs.make("halfcircle")
    names = policy_names(mj.make("mamba", env, mj.preset("mamba", env, size="debug")))
    parts = {"/".join(name.split("/")[:2]) for name in names}
    assert parts == {"learner/model", "learner/actor"}


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_policy_scores_as_its_state(num_seeds):
    algo = tiny()
    trainer = algo if num_seeds == 1 else mj.over_seeds(algo, num_seeds)
    state = trainer.init(jax.random.key(1))
    score = evaluate_policy(algo, take_policy(policy_names(algo), state), jax.random.key(2), 4, num_seeds)
    score_alone = jax.jit(lambda state: evaluate(algo, state, jax.random.key(2), 4))
    for seed in range(num_seeds):
        alone = state if num_seeds == 1 else jax.tree.map(lambda x, i=seed: x[i], state.replace(rounds=state.updates))
        expected = score_alone(alone)
        np.testing.assert_allclose(np.atleast_1d(score.return_mean)[seed], expected.return_mean, rtol=1e-6)


def test_choice_is_made_for_each_seed():
    old, new = ({"w": jnp.full((3, 2), x), "rounds": jnp.int32(x)} for x in (1, 2))
    chosen = choose_better(jnp.array([True, False, True]), new, old)
    np.testing.assert_array_equal(chosen["w"], [[2, 2], [1, 1], [2, 2]])
    assert chosen["rounds"] == 2
    assert_same(choose_better(jnp.array(False), {"w": new["w"]}, {"w": old["w"]}), {"w": old["w"]})


@pytest.fixture
def saved(tmp_path):
    """Checkpoints 1, 2 and 3, their arrays full of their number."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for number in (1, 2, 3):
        arrays = {"a/b": jnp.full(20_000, number, jnp.float32), "c": jnp.array(True)}
        checkpoints.save(number, {"state": arrays, "other": {"d": jnp.int32(number)}}, {"seconds": 0.1 * number})
    return checkpoints, {"state": shapes_of(arrays)}


def test_the_two_newest_are_kept(saved):
    checkpoints, shapes = saved
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["2", "3"]
    items, meta = checkpoints.restore(3, shapes)
    assert set(items) == {"state"} and meta == {"seconds": 0.1 * 3}
    assert_same(items["state"], {"a/b": np.full(20_000, 3, np.float32), "c": np.array(True)})


def test_a_half_written_one_is_not_seen(saved):
    checkpoints, shapes = saved
    half = checkpoints.folder / "4.orbax-checkpoint-tmp"
    shutil.copytree(checkpoints.folder / "3", half)
    reader = Checkpoints(checkpoints.folder, read_only=True)
    assert reader.latest() == 3 and half.exists()
    again = Checkpoints(checkpoints.folder)
    assert again.latest() == 3
    items, meta = again.restore(3, shapes)
    again.save(4, items, meta)
    assert again.latest() == 4 and not half.exists()


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_one_is_refused_and_nothing_is_lost(saved, damage):
    checkpoints, shapes = saved
    files = [path for path in (checkpoints.folder / "3").rglob("*") if path.is_file()]
    victim = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 255
    if damage == "remove":
        victim.unlink()
    else:
        victim.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    again = Checkpoints(checkpoints.folder)
    with pytest.raises(CheckpointError, match=r"checkpoints/3 cannot be read .*; move it away") as error:
        again.restore(again.latest(), shapes)
    assert str(error.value).count("\n") == 0 and "go on from checkpoint 2" in str(error.value)
    assert (checkpoints.folder / "2").exists() and (checkpoints.folder / "3").exists()
    shutil.move(checkpoints.folder / "3", checkpoints.folder.parent / "aside")
    later = Checkpoints(checkpoints.folder)
    items, _ = later.restore(later.latest(), shapes)
    assert items["state"]["a/b"][0] == 2


def test_what_is_not_read_may_be_damaged(saved):
    checkpoints, _ = saved
    checkpoints.save(4, {"state": {"a/b": jnp.zeros(())}, "large": {"x": jnp.arange(9.0)}}, {"n": 4})
    for path in (checkpoints.folder / "4" / "large").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    assert checkpoints.restore(4, {"state": {"a/b": jax.ShapeDtypeStruct((), "float32")}})[1] == {"n": 4}
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoints.restore(4, {"large": {"x": jax.ShapeDtypeStruct((9,), "float32")}})


def test_damaged_checksums_are_named(saved):
    checkpoints, shapes = saved
    whole = checkpoints.checksum_file.read_text()
    checkpoints.checksum_file.write_text(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"checksums.json is damaged: delete it"):
        checkpoints.restore(3, shapes)


def test_one_that_cannot_be_written_is_named_and_the_one_before_stays(saved, monkeypatch):
    checkpoints, shapes = saved

    def full(*args, **kwargs):
        raise ValueError("No space left on device\nand more")

    monkeypatch.setattr(checkpoints.manager, "save", full)
    with pytest.raises(
        CheckpointError, match=r"checkpoints/4 cannot be written \(No space left on device\); the one before is kept"
    ):
        checkpoints.save(4, {"state": {"c": jnp.array(True)}}, {})
    later = Checkpoints(checkpoints.folder, read_only=True)
    assert later.restore(later.latest(), shapes)[0]["state"]["a/b"][0] == 3


def test_shapes_that_do_not_fit_are_refused(saved):
    checkpoints, shapes = saved
    other = {"state": shapes["state"] | {"more": jax.ShapeDtypeStruct((2,), jnp.float32)}}
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoints.restore(3, other)
