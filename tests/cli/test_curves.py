"""Curves of several runs, and the figures they are compared with."""

import json
from pathlib import Path

import numpy as np
import pytest

from mamba_jax.curves import Curve, draw, grouped, merge, read_curve
from mamba_jax.reference import PROTOCOLS, REFERENCES, reference
from mamba_jax.run_folder import FORMAT, RunFolder

TASK = ("halfcircle", None, 3, 100)


def write_run(path, algo, returns, *, seed=0, seeds=1, config=None):
    """A folder with evaluations at 0, 100, 200, ... steps; `returns`: (points,) or (points, seeds)."""
    options = {"env": "halfcircle", "algo": algo, "size": "paper", "seed": seed}
    environment = {"subtasks": None, "sub_episodes": 3, "length": 100}
    path.mkdir()
    description = {"format": FORMAT, "options": options, "environment": environment, "config": config or {}}
    (path / "config.json").write_text(json.dumps(description))
    lines = [{"round": 0, "env_steps": 50, "train/loss": 1.0}]
    for i, value in enumerate(returns):
        record = {"round": i, "env_steps": 100 * i, "eval/return_mean": float(np.mean(value))}
        lines.append(record | ({"eval/return_mean/seeds": list(value)} if seeds > 1 else {}))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return RunFolder(path)


def test_runs_of_one_kind_become_one_curve(tmp_path):
    """One run of two seeds and one of one seed, which is shorter."""
    both = read_curve(write_run(tmp_path / "a", "mamba", [[0.0, 2.0], [4.0, 6.0], [8.0, 8.0]], seeds=2))
    one = read_curve(write_run(tmp_path / "b", "mamba", [1.0, 3.0], seed=2))
    other = read_curve(write_run(tmp_path / "c", "rl2", [1.0, 3.0]))
    curves = grouped([both, one, other])[TASK]
    np.testing.assert_array_equal(curves["mamba"].steps, [0, 100])
    np.testing.assert_array_equal(curves["mamba"].returns, [[0, 2, 1], [4, 6, 3]])
    np.testing.assert_array_equal(curves["rl2"].returns, [[1], [3]])
    draw([both, one, other], tmp_path / "out" / "curves.png")
    assert (tmp_path / "out" / "curves.png").stat().st_size > 10_000


def test_runs_of_other_settings_are_other_curves(tmp_path):
    plain, again = (read_curve(write_run(tmp_path / f"{i}", "mamba", [0.0, 1.0], seed=i)) for i in range(2))
    other = read_curve(write_run(tmp_path / "c", "mamba", [2.0, 3.0], config={"actor_critic": {"discount": 0.9}}))
    curves = grouped([plain, other, again])[TASK]
    assert [curve.returns.shape[1] for curve in curves.values()] == [2, 1]
    assert list(curves) == [f"mamba, {tmp_path / '0'}", f"mamba, {tmp_path / 'c'}"]


def test_a_copy_of_a_run_is_no_other_seed(tmp_path):
    run, copy = (read_curve(write_run(tmp_path / name, "mamba", [0.0, 1.0])) for name in "ab")
    assert [curve.returns.shape[1] for curve in grouped([run, copy])[TASK].values()] == [1, 1]


def test_curves_with_different_steps_are_interpolated():
    curves = [
        Curve(TASK, "mamba", "mamba", np.array(s), np.array(r)[:, None], {}, 0, Path("a"))
        for s, r in (([0, 10], [0.0, 1]), ([5], [3.0]))
    ]
    merged = merge(curves)
    np.testing.assert_array_equal(merged.steps, [5])
    np.testing.assert_array_equal(merged.returns, [[0.5, 3.0]])


def test_a_run_without_evaluations_is_named(tmp_path):
    with pytest.raises(ValueError, match="no evaluation yet"):
        read_curve(write_run(tmp_path / "a", "mamba", []))


def test_references_apply_to_the_published_protocol_only():
    assert reference("rooms", 3, 2, 100).paper["varibad"][:2] == (158.7, 2.6)
    assert reference("rooms", 3, 1, 100).ceiling is None and reference("rooms", 30, 2, 100).paper == {}
    assert "rl2" not in reference("reacher", 3, 3, 300).paper


def test_ceilings_exceed_the_paper():
    for (env, subtasks), known in REFERENCES.items():
        assert env in PROTOCOLS and known.paper["mamba"].mean > 0, (env, subtasks)
        if known.ceiling is not None:
            assert max(result.mean for result in known.paper.values()) < known.ceiling < known.task_known
    rooms = [REFERENCES["rooms", n].ceiling for n in range(3, 9)]
    np.testing.assert_allclose(rooms, 160.4 - 17.6 * np.arange(6), atol=0.05)
