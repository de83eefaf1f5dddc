"""What sets of runs know of their runs, without training any."""

import json
from argparse import Namespace

import jobs
import pytest
from test_table import write_result


def job_of(out, row="halfcircle", extra=(), **options):
    """A run of MAMBA in `out`, of as many steps as `write_result` has it."""
    chosen = Namespace(**{"seeds": 2, "size": "small", "steps": 19_200_000, "out": out} | options)
    return jobs.make_job(row, "mamba", f"{row}-mamba", list(extra), chosen)


def test_a_run_is_what_its_command_line_says(tmp_path):
    job = job_of(tmp_path, "rooms-2", ["--train-tasks", "3"], size="debug", steps=1000)
    env, config = job.choice.algo.env, job.choice.algo.config
    assert (env.train_tasks, env.env.num_rooms, config.run.steps, job.seeds) == (3, 2, 1000, 2)
    assert job.folder == tmp_path / "rooms-2-mamba" and job.updates == 3 * 2  # three rounds of two lanes of 200 steps


def test_only_the_same_run_is_finished(tmp_path):
    write_result(tmp_path / "halfcircle-mamba", [240.0, 250.0], identity=job_of(tmp_path).choice.identity())
    assert jobs.plan(job_of(tmp_path)) == f"{tmp_path / 'halfcircle-mamba'}: done"
    for options, difference in (
        ({"seeds": 3}, "options.seeds is 2 there, 3 here"),
        ({"steps": 5_000_000}, "config.run.steps is 19200000 there, 5000000 here"),
        ({"extra": ["--config.data.explore", "0.5"]}, "config.data.explore is 0.25 there, 0.5 here"),
    ):
        with pytest.raises(ValueError, match=f"{difference}.*: choose another --out"):
            jobs.plan(job_of(tmp_path, **options))


def test_a_run_of_fewer_steps_is_to_be_resumed(tmp_path):
    job = job_of(tmp_path, "point-wind")  # HalfCircle's learning rates go by the number of steps
    write_result(job.folder, [240.0, 250.0], identity=job.choice.identity())
    (job.folder / "checkpoints" / "1").mkdir(parents=True)
    records = [{"updates": 16, "seconds": 9.6}, {"updates": 16_000, "seconds": 9_600.0}]
    (job.folder / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    longer = job_of(tmp_path, "point-wind", steps=24_000_000)
    assert jobs.finished(job) and not jobs.finished(longer)
    assert jobs.plan(longer).endswith("resume at 16,000 of 20,000 updates with 2 seeds, about 40 min")


def test_the_time_of_a_run_is_known_from_a_finished_one_beside_it(tmp_path):
    write_result(tmp_path / "other", [240.0, 250.0])
    longer = jobs.plan(job_of(tmp_path, steps=24_000_000))
    assert longer.endswith("halfcircle-mamba: train 20,000 updates with 2 seeds, about 75 min on 2 CPU cores")


def test_runs_side_by_side_share_the_memory_of_a_gpu_and_the_cpus(monkeypatch):
    shares = ("XLA_PYTHON_CLIENT_MEM_FRACTION", "NPROC")
    for name in shares:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jobs, "usable_cpus", lambda: 8)
    halfcircle, humanoid = ["--env", "halfcircle"], ["--env", "humanoid-dir"]
    assert not set(shares) & set(jobs.environment(1, halfcircle))
    found = jobs.environment(3, halfcircle)
    assert [found[name] for name in shares] == ["0.300", "2"] and "PATH" in found
    assert jobs.environment(9, halfcircle)["NPROC"] == "1"
    assert "NPROC" not in jobs.environment(3, humanoid)
    for name in shares:
        monkeypatch.setenv(name, ".2")
    assert [jobs.environment(3, halfcircle)[name] for name in shares] == [".2", ".2"]


def test_shares_are_those_of_the_runs_that_are_left(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(jobs, "execute", lambda job, side_by_side, stop: seen.append(side_by_side) or 0)
    both = [job_of(tmp_path / name) for name in ("a", "b")]
    assert jobs.execute_all(both, 5) == jobs.execute_all(both, 1) == jobs.execute_all([], 5) == 0
    assert seen == [2, 2, 1, 1]


@pytest.mark.parametrize("row", ["moon", "rooms-0", "halfcircle-3"])
def test_rows_that_run_py_would_refuse_are_refused(tmp_path, row):
    with pytest.raises(ValueError):
        job_of(tmp_path, row)
