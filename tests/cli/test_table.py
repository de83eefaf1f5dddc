"""The table of results, and the command that trains it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import options as command_line
import pytest

from mamba_jax.run_folder import FORMAT, FolderError
from mamba_jax.table import draw, interquartile_mean, markdown, over_seeds, read_entries

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "reproduce.py"

ONE_DEVICE = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}


def write_result(path, returns, *, env="halfcircle", subtasks=None, algo="mamba", seed=0, config=None, identity=None):
    """The folder of a finished run of several seeds; `identity` says what else it was."""
    description = {
        "format": FORMAT,
        "options": {"env": env, "algo": algo, "size": "small", "seed": seed, "seeds": len(returns)},
        "config": config or {},
        "environment": {"name": env, "subtasks": subtasks, "sub_episodes": 3, "length": 100},
        "hardware": {"backend": "cpu", "devices": ["cpu"], "cpus": 2},
    }
    description |= identity or {}
    best = {"seeds": [{"return_mean": value} for value in returns]}
    last = {"seeds": [{"return_mean": value - 10} for value in returns]}
    result = {"return_mean": float(np.mean(returns)), "return_per_sub_episode": [1.0, 2.0, 3.0]}
    result |= {"best": best, "last": last}
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(description))
    (path / "eval.json").write_text(json.dumps(result | {"env_steps": 19_200_000, "updates": 16000, "seconds": 3600.0}))


def test_the_interquartile_mean_leaves_out_the_outer_quarters():
    result = interquartile_mean([0.0, 10.0, 20.0, 1000.0])
    assert result.mean == 15.0
    assert 0 <= result.low <= 10 and 20 <= result.high <= 1000
    assert interquartile_mean([7.0]) == (7.0, 7.0, 7.0)


def test_a_finished_run_stands_beside_the_paper_and_the_ceiling(tmp_path):
    write_result(tmp_path / "a", [230.0, 240.0, 250.0])
    write_result(tmp_path / "b", [200.0, 220.0], algo="varibad")
    (tmp_path / "unfinished").mkdir()
    entries = read_entries(tmp_path)
    assert [entry.algo for entry in entries] == ["mamba", "varibad"]
    line = markdown(entries, tmp_path).splitlines()[2]
    for part in (
        "240.0 ± 8.2 (3 seeds)",
        "| 230.0 ± 8.2 |",
        "269.4",
        "19.2M",
        "60 min, 2 CPU cores",
        "[a](a)",
        "240.0 [",
    ):
        assert part in line
    # The paper counts every step of MAMBA twice, those of VariBAD once.
    assert "| 242.2 ± 7.9 (1.0M) |" in line and "| 218.0 ± 26.0 (10.0M) |" in markdown(entries, tmp_path)
    draw(entries, tmp_path / "table.png")
    assert (tmp_path / "table.png").stat().st_size > 5_000


def test_runs_that_differ_in_their_seed_alone_are_one_entry(tmp_path):
    write_result(tmp_path / "a", [230.0, 240.0], seed=0)
    write_result(tmp_path / "b", [250.0], seed=1)
    write_result(tmp_path / "other", [0.0], seed=2, config={"rate": 1.0})
    together, other = over_seeds(read_entries(tmp_path))
    assert sorted(together.scores) == [230.0, 240.0, 250.0] and list(other.scores) == [0.0]
    assert sorted(together.last_scores) == [220.0, 230.0, 240.0]
    assert together.seconds == 7200.0 and together.by_sub_episode == (1.0, 2.0, 3.0)
    line = markdown([together], tmp_path)
    assert "240.0 ± 8.2 (3 seeds)" in line and "[1](a), [2](b)" in line
    write_result(tmp_path / "copy", [250.0], seed=1)
    assert [len(entry.scores) for entry in over_seeds(read_entries(tmp_path))] == [3, 1, 1]


def test_agents_that_two_runs_share_are_not_counted_twice(tmp_path):
    write_result(tmp_path / "three", [230.0, 240.0, 250.0], seed=0)
    write_result(tmp_path / "five", [230.0, 240.0, 250.0, 260.0, 270.0], seed=0)
    write_result(tmp_path / "one", [245.0], seed=0)
    assert sorted(len(entry.scores) for entry in over_seeds(read_entries(tmp_path))) == [3, 6]


def test_links_lead_to_runs_on_another_disk(tmp_path):
    write_result(tmp_path / "disk" / "a", [230.0])
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "linked").symlink_to(tmp_path / "disk" / "a")
    assert "[linked](linked)" in markdown(read_entries(tmp_path / "results"), tmp_path / "results")


def test_what_another_program_left_is_passed_over_and_damage_is_named(tmp_path):
    write_result(tmp_path / "a", [230.0])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "eval.json").write_text('{"score": 1}')
    assert [entry.path.name for entry in read_entries(tmp_path)] == ["a"]
    (tmp_path / "a" / "eval.json").write_text('{"best": ')
    with pytest.raises(FolderError, match=r"a/eval.json is damaged: delete it"):
        read_entries(tmp_path)


def test_rows_of_different_numbers_of_sub_tasks_stay_apart(tmp_path):
    for rooms in (4, 3):
        write_result(tmp_path / f"rooms-{rooms}", [10.0, 20.0], env="rooms", subtasks=rooms)
    assert [entry.row for entry in read_entries(tmp_path)] == ["rooms-3", "rooms-4"]


def reproduce(folder, *arguments):
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")} | ONE_DEVICE
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reproduce")


def test_a_dry_run_says_what_is_left_and_how_long_it_takes(folder):
    words = ["--env", "point-wind", "--size", "small", "--seeds", "2"]
    identity = command_line.parse(words).identity()
    write_result(folder / "results" / "point-wind-mamba-small", [240.0, 250.0], identity=identity)
    result = reproduce(folder, "--rows", "point-wind", "rooms-3", "--seeds", "2", "--dry-run")
    assert result.returncode == 0, result.stderr
    done, missing = result.stdout.splitlines()
    assert done == "results/point-wind-mamba-small: done"
    assert missing.startswith("results/rooms-3-mamba-small: train ") and "nobody measured" in missing
    assert not (folder / "results" / "rooms-3-mamba-small").exists()


def test_the_folder_of_another_run_is_refused(folder):
    write_result(folder / "results" / "halfcircle-mamba-small", [240.0, 250.0])
    result = reproduce(folder, "--rows", "halfcircle", "--seeds", "2")
    assert result.returncode == 2 and result.stdout == ""
    (sentence,) = result.stderr.splitlines()
    assert "holds a run of another configuration" in sentence and sentence.endswith("choose another --out.")


@pytest.mark.parametrize("apart", [False, True])
def test_rows_are_trained_once_and_tabulated(folder, apart):
    made = folder / f"made-{apart}"
    words = ["--rows", "rooms-2", "--algos", "rl2", "--size", "debug", "--seeds", "2", "--out", made.name]
    words += ["--jobs", "2", *(["--apart"] if apart else [])]
    first = reproduce(folder, *words)
    assert first.returncode == 0, first.stdout + first.stderr
    table = (made / "table.md").read_text()
    assert table.count("rooms-2 |") == 1 and "(2 seeds)" in table
    assert (made / "table.png").exists()
    runs = ["rooms-2-rl2-debug-s0", "rooms-2-rl2-debug-s1"] if apart else ["rooms-2-rl2-debug"]
    assert sorted(path.name for path in made.iterdir() if path.is_dir()) == runs
    assert reproduce(folder, *words).stdout.count(": done") == len(runs)


@pytest.mark.parametrize("words", [["--rows", "moon-3"], ["--rows", "rooms-1"], ["--seeds", "0"]])
def test_impossible_requests_end_with_one_sentence(folder, words):
    result = reproduce(folder, *words)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_signal_stops_the_run_and_starts_no_other(folder):
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")} | ONE_DEVICE
    words = ["--rows", "rooms-2", "rooms-3", "--algos", "rl2", "--size", "debug", "--out", "stopped"]
    command = [sys.executable, str(SCRIPT), *words]
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    while not (folder / "stopped" / "rooms-2-rl2-debug" / "config.json").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.terminate()
    process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGTERM
    assert not (folder / "stopped" / "rooms-3-rl2-debug").exists()
