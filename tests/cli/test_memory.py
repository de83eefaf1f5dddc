"""The study of what world models remember; the training itself is MAMBA's and tested with it."""

import json

import jax
import memory
import numpy as np
import pytest
from foresight import Foresight

import envs


@pytest.mark.parametrize(("name", "subtasks"), [("halfcircle", None), ("reacher", 1)])
def test_the_script_finds_leaves_and_comes_back(name, subtasks):
    env = envs.make(name, subtasks=subtasks)
    script = memory.make_script(name if subtasks is None else f"{name}-{subtasks}")
    rows = jax.jit(lambda key: memory.play(env, script, key, 32))(jax.random.key(0))
    rewarded = np.asarray(rows.observation["reward"]) > 0
    assert rewarded.shape == (32, env.num_steps) and np.asarray(rows.is_first).sum(1).tolist() == [1] * 32
    assert rewarded.any(1).mean() > 0.8  # most find their goal
    again = (rewarded[:, 1:] & ~rewarded[:, :-1]).sum(1)
    assert (again > 3).sum() > 6  # and some come back time and again
    assert np.isfinite(np.asarray(rows.action)).all() and np.abs(np.asarray(rows.action)).max() <= 1


def test_a_memory_that_is_there_is_told_from_one_that_is_not():
    now, met = np.zeros(4), np.array([False, True, True, True])
    true = np.tile(np.array([1.0, 1.0, 0.5, 0.0]), (16, 1))
    knows = memory.remembered(Foresight(now, met, true, true))
    guesses = memory.remembered(Foresight(now, met, true, np.full_like(true, 0.5)))
    assert knows["known/came"] == knows["known/imagined_where_came"] == 0.75 and knows["known/imagined_elsewhere"] == 0
    assert guesses["known/imagined_where_came"] == guesses["known/imagined_elsewhere"] == 0.5
    assert knows["new/came"] == 1.0


def test_a_finished_row_is_not_repeated_and_drawn_again(tmp_path, capsys):
    out = tmp_path / "out"
    memory.open_folder(out, [], {"updates": 500})
    record = {"known/came": 0.5, "known/imagined_where_came": 0.25, "known/imagined_elsewhere": 0.1}
    lines = [json.dumps({"row": "halfcircle", "updates": n} | record) for n in (250, 500)]
    (out / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert memory.main(["--rows", "halfcircle", "--updates", "500", "--out", str(out)]) == 0
    assert "halfcircle: done" in capsys.readouterr().out and (out / "memory.png").exists()


@pytest.mark.parametrize(
    "words", [["--rows", "rooms-3"], ["--rows", "reacher-2"], ["--updates", "0"], ["--updates", "9"]]
)
def test_bad_choices_are_usage_errors(words, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        memory.main([*words, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith("memory.py: ")
    assert not (tmp_path / "out").exists()
