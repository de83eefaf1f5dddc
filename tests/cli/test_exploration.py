"""The experiment that counts visited places; the training itself is the algorithms' and tested with them."""

import json
from types import SimpleNamespace

import exploration
import jax.numpy as jnp
import numpy as np
import pytest

import envs


@pytest.mark.parametrize("number", [2, 3, 6, 8])
def test_rooms_have_a_place_for_every_cell(number):
    rooms = envs.make("rooms", subtasks=number).env
    layout = exploration.make_map(f"rooms-{number}")
    cells = [(x, y) for x in range(6 * number - 3) for y in (-1, 0, 1) if x % 6 < 3 or y == 0]
    states = [rooms._observe(SimpleNamespace(position=jnp.array(cell)))["state"] for cell in cells]
    visited = [set()]
    found = exploration.count(layout, np.stack(states)[None, None], visited)
    assert found["cells"] == [len(cells)] and found["cells_so_far"] == [len(cells)] and found["far"] == [1.0]
    before_last = [state for state, (x, _) in zip(states, cells, strict=True) if x < 6 * (number - 1)]
    assert exploration.count(layout, np.stack(before_last)[None, None], visited)["far"] == [0.0]


def test_places_add_up_over_rounds_and_not_over_seeds():
    layout, visited = exploration.make_map("escape-room"), [set(), set()]
    here, there = np.zeros((1, 3, 2)), np.full((1, 3, 2), 0.9)
    first = exploration.count(layout, np.stack([here, here]), visited)
    second = exploration.count(layout, np.stack([here, there]), visited)
    assert first == {"cells": [1.0, 1.0], "cells_so_far": [1, 1], "far": [0.0, 0.0]}
    assert second == {"cells": [1.0, 1.0], "cells_so_far": [1, 2], "far": [0.0, 1.0]}


@pytest.mark.parametrize("words", [["--rows", "halfcircle"], ["--rows", "rooms-1"], ["--steps", "0"]])
def test_bad_choices_are_usage_errors(words, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        exploration.main([*words, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith("exploration.py: ")
    assert not (tmp_path / "out").exists()


def test_another_experiment_is_not_overwritten_and_a_finished_part_not_repeated(tmp_path, capsys):
    identity = {"steps": 1000, "seeds": 2, "size": "debug"}
    exploration.open_folder(tmp_path / "out", [], identity)
    with pytest.raises(ValueError, match="another experiment"):
        exploration.open_folder(tmp_path / "out", [], identity | {"seeds": 3})
    record = {"return": [0.0, 1.0], "cells": [1.0, 2.0], "cells_so_far": [1, 2], "far": [0.0, 0.5], "seconds": 1.0}
    lines = [{"row": "rooms-3", "algo": "hyperx", "env_steps": 500 * n} | record for n in (1, 2, 3, 4)]
    (tmp_path / "out" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["--rows", "rooms-3", "--algos", "hyperx", "--steps", "1000", "--seeds", "2", "--size", "debug"]
    assert exploration.main([*words, "--out", str(tmp_path / "out")]) == 0
    assert "rooms-3, hyperx: done" in capsys.readouterr().out
    assert "| rooms-3 | hyperx | 1,000 | 0.5 ± 0.5 | 1.5 ± 0.5 |" in (tmp_path / "out" / "summary.md").read_text()
    assert (tmp_path / "out" / "exploration.png").stat().st_size > 1000
