"""The script that trains on few tasks and tests in fresh ones."""

import json

import decomposable
import evaluate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_table import write_result
from tiny import lifetime_env, tiny

import envs
from mamba_jax.progress import Reporter
from mamba_jax.run import make_run
from mamba_jax.run_folder import RunFolder
from mamba_jax.table import read_entry


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Compiled programs are kept with the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_there_is_a_run_for_every_choice(tmp_path):
    words = ["--rooms", "2", "4", "--tasks", "8", "all", "--algos", "rl2", "--size", "debug", "--out", str(tmp_path)]
    jobs = decomposable.make_jobs(decomposable.parser().parse_args(words))
    found = [(job.folder.name, job.choice.algo.env.train_tasks, job.choice.options.subtasks) for job in jobs]
    assert found == [
        ("rooms-2-rl2-8", 8, 2), ("rooms-2-rl2-all", None, 2), ("rooms-4-rl2-8", 8, 4), ("rooms-4-rl2-all", None, 4)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "steps"), [([], 10_000_000), (["--steps", "960000"], 960_000), (["--size", "fast"], None)]
)
def test_size_small_has_the_steps_of_the_recorded_runs(words, steps, tmp_path):
    words = ["--rooms", "4", "--tasks", "all", "--algos", "varibad", "--out", str(tmp_path), *words]
    (job,) = decomposable.make_jobs(decomposable.parser().parse_args(words))
    assert ("--steps" in job.arguments) == (steps is not None)
    assert steps in (None, job.choice.algo.config.run.steps)


def test_tasks_that_are_alike_count_once():
    assert decomposable.different_tasks(envs.make("rooms", subtasks=2, train_tasks=1)) == 1
    few, many = (decomposable.different_tasks(envs.make("rooms", subtasks=2, train_tasks=m)) for m in (8, 500))
    assert 1 < few <= 8 and many == 4**2


@pytest.mark.parametrize(
    "words", [["--rooms", "1"], ["--tasks", "0"], ["--tasks", "some"], ["--algos", "sac"], ["--seeds", "0"]]
)
def test_bad_choices_are_usage_errors(words, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        decomposable.main([*words, "--out", str(tmp_path / "out")])
    (sentence,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and sentence.startswith("decomposable.py: ")
    assert not (tmp_path / "out").exists()


def write_tested(out, tasks, fresh, gap=None, different=None):
    """A finished run, and its test in the training tasks if there was one."""
    folder = out / f"rooms-3-mamba-{tasks or 'all'}"
    write_result(folder, fresh, env="rooms", subtasks=3)
    description = json.loads((folder / "config.json").read_text())
    description["options"] |= {"subtasks": 3, "train_tasks": tasks}
    (folder / "config.json").write_text(json.dumps(description))
    if gap:
        training = {"seeds": [{"return_mean": sum(pair)} for pair in zip(fresh, gap, strict=True)]}
        tested = {"gap": gap, "different_tasks": different, "training": training}
        (folder / "gap.json").write_text(json.dumps(tested))


def test_gaps_are_tabulated_by_the_number_of_training_tasks(tmp_path):
    write_tested(tmp_path, None, [140.0, 150.0])
    write_tested(tmp_path, 32, [100.0, 110.0], [20.0, 30.0], 25)
    write_tested(tmp_path, 4, [10.0, 20.0], [80.0, 100.0], 4)
    write_tested(tmp_path, 8, [10.0, 20.0])
    write_result(tmp_path / "halfcircle-mamba-small", [240.0])
    description = json.loads((tmp_path / "halfcircle-mamba-small" / "config.json").read_text())
    description["options"] |= {"subtasks": None, "train_tasks": None}
    (tmp_path / "halfcircle-mamba-small" / "config.json").write_text(json.dumps(description))
    decomposable.write_results(tmp_path)
    rows = (tmp_path / "decomposable.md").read_text().splitlines()[2:]
    starts = [
        "| rooms-3 | mamba, small | 4 | 4 of 64 | 105.0 ± 15.0 (2 seeds) | 15.0 ± 5.0 (2 seeds) | 90.0 ± 10.0 ",
        "| rooms-3 | mamba, small | 32 | 25 of 64 | 130.0 ± 10.0 (2 seeds) | 105.0 ± 5.0 (2 seeds) | 25.0 ± 5.0 ",
        "| rooms-3 | mamba, small | all | 64 of 64 | 145.0 ± 5.0 (2 seeds) | 145.0 ± 5.0 (2 seeds) | - |",
    ]
    assert [row.startswith(start) for row, start in zip(rows, starts, strict=True)] == [True] * 3
    assert (tmp_path / "decomposable.png").stat().st_size > 20_000


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_gap_is_between_training_and_fresh_tasks(seeds, tmp_path, monkeypatch):
    """Two sub-episodes of as many steps as the task says, each of which pays a half."""
    algo = tiny(lifetime_env(train_tasks=1))
    run = make_run(algo, RunFolder(tmp_path / "run"), Reporter(), seed=0, num_seeds=seeds)
    state = run.trainer.init(jax.random.key(0))
    state = state.replace(gain=jnp.full_like(state.gain, jnp.arctanh(0.5)))
    monkeypatch.setattr(evaluate, "load_run", lambda folder: run)
    monkeypatch.setattr("mamba_jax.run_state.load_policy", lambda run, which: (run.policy_of(state), 0))
    monkeypatch.setattr(decomposable, "different_tasks", lambda env: 1)
    write_result(tmp_path / "run", [1.5] * seeds)
    decomposable.measure_gap(tmp_path / "run")
    tested = json.loads((tmp_path / "run" / "gap.json").read_text())
    lifetime = int(algo.env.training_task(0).lifetime)
    assert tested["training"]["return_std"] == 0 and tested["training"]["return_mean"] == pytest.approx(lifetime)
    assert tested["gap"] == pytest.approx([lifetime - 1.5] * seeds)


def test_a_run_is_trained_and_tested_in_its_training_tasks_once(tmp_path, capfd):
    """The training is in a process of its own."""
    words = ["--rooms", "2", "--tasks", "1", "--algos", "rl2", "--size", "debug", "--seeds", "2", "--steps", "800"]
    words += ["--out", str(tmp_path)]
    assert decomposable.main(words) == 0
    run = tmp_path / "rooms-2-rl2-1"
    assert json.loads((run / "config.json").read_text())["options"]["train_tasks"] == 1
    tested, fresh = (json.loads((run / name).read_text()) for name in ("gap.json", "eval.json"))
    assert tested["training"]["tasks"] == fresh["tasks"] and tested["different_tasks"] == 1
    seeds = zip(tested["training"]["seeds"], fresh["best"]["seeds"], strict=True)
    np.testing.assert_allclose(tested["gap"], [x["return_mean"] - y["return_mean"] for x, y in seeds], atol=1e-6)
    assert "| rooms-2 | rl2, debug | 1 | 1 of 16 |" in (tmp_path / "decomposable.md").read_text()
    training = {"seeds": [{"return_mean": seed["return_mean"] + 1000} for seed in fresh["best"]["seeds"]]}
    (run / "gap.json").write_text(json.dumps(tested | {"gap": [1000.0, 1000.0], "training": training}))
    capfd.readouterr()
    assert decomposable.main(words) == 0
    assert (
        capfd.readouterr().out.startswith(f"{run}: done")
        and "1000.0 ± 0.0" in (tmp_path / "decomposable.md").read_text()
    )


def test_a_run_that_went_on_is_tested_again(tmp_path):
    write_tested(tmp_path, 4, [10.0, 20.0], [80.0, 100.0], 4)
    folder = tmp_path / "rooms-3-mamba-4"
    assert decomposable.read_gap(read_entry(RunFolder(folder)))["gap"] == [80.0, 100.0]
    longer = json.loads((folder / "eval.json").read_text())
    longer["best"]["seeds"][1]["return_mean"] = 60.0
    (folder / "eval.json").write_text(json.dumps(longer))
    assert decomposable.read_gap(read_entry(RunFolder(folder))) is None and decomposable.read_results(tmp_path) == []
