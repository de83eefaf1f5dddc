"""The script that changes one part of MAMBA at a time."""

import dataclasses
import json

import ablations
import pytest
from test_table import write_result

from mamba_jax.run_folder import different_leaves

CHANGES = {
    "full": [],
    "without-reward-and-time": ["config.world_model.reward_and_time is True there, False here"],
    "random-windows": ["config.data.context is meta_episode there, window here"],
    "without-schedule": ["config.horizon.initial is 50 there, 0 here"],
    "without-local-reconstruction": ["config.world_model.window is 3 there, 0 here"],
    "released-pairing": ["config.world_model.pairing is aligned there, released here"],
    "without-exploring-lanes": ["config.data.explore is 0.25 there, 0.0 here"],
    "final-boundary": ["boundary is reset there, final here"],
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Compiled programs are kept with the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_row_without_sub_tasks_is_that_of_their_default_number(tmp_path):
    """Under whose name the results are found again."""
    options = ablations.parser().parse_args(["--row", "reacher", "--variants", "full", "--out", str(tmp_path)])
    (job,) = ablations.make_jobs(options)
    assert (job.row, job.folder.name, job.choice.options.subtasks) == ("reacher-1", "reacher-1-full", 1)


def test_every_variant_changes_one_part(tmp_path):
    options = ablations.parser().parse_args(["--out", str(tmp_path)])
    jobs = ablations.make_jobs(options)
    described = {
        job.folder.name.removeprefix("rooms-3-"): {
            "config": dataclasses.asdict(job.choice.algo.config),
            "boundary": job.choice.algo.env.boundary,
        }
        for job in jobs
    }
    found = {variant: list(different_leaves(described["full"], own)) for variant, own in described.items()}
    assert found == CHANGES
    assert {job.seeds for job in jobs} == {5} and described["random-windows"]["config"]["data"]["window"] == 64


def test_the_pairing_that_the_full_agent_has_is_no_variant(tmp_path):
    for row, other in (("halfcircle", "aligned-pairing"), ("rooms-3", "released-pairing")):
        options = ablations.parser().parse_args(["--row", row, "--out", str(tmp_path)])
        names = {job.folder.name.removeprefix(f"{row}-") for job in ablations.make_jobs(options)}
        assert names & {"released-pairing", "aligned-pairing"} == {other}


def test_a_row_without_schedule_has_no_variant_without_it(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--row", "halfcircle", "--variants", "full", "without-schedule", "--steps", "19200000", "--dry-run"]
    assert ablations.main([*words, "--out", str(out)]) == 0
    full, left_out = sorted(capsys.readouterr().out.splitlines())
    assert full.startswith(f"{out}/halfcircle-full: train 16,000 updates with 5 seeds")
    assert left_out.startswith(f"{out}/halfcircle-without-schedule: left out") and not out.exists()


@pytest.mark.parametrize(
    "words", [["--row", "moon"], ["--row", "rooms-1"], ["--variants", "all"], ["--seeds", "0"], ["--steps", "many"]]
)
def test_bad_choices_are_usage_errors(words, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        ablations.main([*words, "--out", str(tmp_path / "out")])
    (sentence,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and sentence.startswith("ablations.py: ")
    assert not (tmp_path / "out").exists()


def write_run(out, variant, returns):
    """A finished run with a learning curve."""
    folder = out / f"rooms-3-{variant}"
    write_result(folder, returns, env="rooms", subtasks=3)
    values = {"eval/return_mean": sum(returns) / len(returns), "eval/return_mean/seeds": returns}
    lines = [json.dumps({"round": n, "env_steps": 100 * n} | values) for n in range(3)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def test_finished_variants_are_tabulated_in_their_order(tmp_path):
    write_run(tmp_path, "final-boundary", [100.0, 120.0])
    write_run(tmp_path, "random-windows", [50.0, 70.0])
    write_run(tmp_path, "full", [140.0, 150.0])
    write_run(tmp_path, "of-another-kind", [0.0, 0.0])
    ablations.write_results(tmp_path)
    rows = (tmp_path / "ablations.md").read_text().splitlines()[2:]
    starts = ["| rooms-3 | mamba, small | 145.0 ± 5.0 (2 seeds) |", "| rooms-3 | random-windows, small | 60.0 ± 10.0"]
    starts += ["| rooms-3 | final-boundary, small | 110.0 ± 10.0"]
    assert [row.startswith(start) for row, start in zip(rows, starts, strict=True)] == [True] * 3
    assert (tmp_path / "ablations.png").stat().st_size > 20_000


def test_a_variant_is_trained_once(tmp_path, capfd):
    """The training is in a process of its own."""
    words = ["--row", "rooms-2", "--variants", "without-reward-and-time", "--size", "debug", "--steps", "800"]
    words += ["--seeds", "1", "--out", str(tmp_path / "out")]
    assert ablations.main(words) == 0
    run = tmp_path / "out" / "rooms-2-without-reward-and-time"
    assert json.loads((run / "config.json").read_text())["config"]["world_model"]["reward_and_time"] is False
    assert "| rooms-2 | without-reward-and-time, debug |" in (tmp_path / "out" / "ablations.md").read_text()
    assert (tmp_path / "out" / "ablations.png").exists()
    capfd.readouterr()
    assert ablations.main(words) == 0
    first, *others = capfd.readouterr().out.splitlines()
    assert first == f"{run}: done" and len(others) == 1 and others[0].startswith("Wrote ")
