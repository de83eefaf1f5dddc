"""`benchmark.py`: what it measures, and what it refuses."""

import json

import benchmark
import pytest


def test_a_round_of_two_seeds_counts_the_work_of_both(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(
        benchmark, "several_seeds", lambda: iter([benchmark.whole_round("halfcircle", None, "debug", 2)])
    )
    assert benchmark.main(["--only", "seeds", "--out", str(tmp_path / "new" / "figures.jsonl")]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures == json.loads((tmp_path / "new" / "figures.jsonl").read_text())
    assert figures["part"] == "seeds" and figures["seeds"] == figures["updates_per_round"] == 2
    assert figures["updates_per_s"] == pytest.approx(2 * 2 / figures["round_s"], rel=1e-2)
    assert figures["steps_per_s"] == pytest.approx(2 * 600 / figures["round_s"], rel=1e-2)
    assert figures["donated_mb"] == pytest.approx(figures["state_mb"], rel=1e-2)  # the state is not kept twice


def test_figures_of_other_parts_stay_in_the_file(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, "several_seeds", lambda: iter([{"speed": 2}]))
    out = tmp_path / "figures.jsonl"
    out.write_text('{"part": "env", "speed": 1}\n{"part": "seeds", "speed": 1}\n')
    assert benchmark.main(["--only", "seeds", "--out", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["part"], line["speed"]) for line in lines] == [("env", 1), ("seeds", 2)]
    out.write_text("years of work")
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["--only", "seeds", "--out", str(out)])
    assert stop.value.code == 2 and out.read_text() == "years of work"
    assert "choose another --out" in capsys.readouterr().err


def test_an_unknown_part_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["--only", "speed"])
    assert stop.value.code == 2
    assert "choose from" in capsys.readouterr().err
