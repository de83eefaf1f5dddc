"""Who may write to a folder, and configurations that come back from it."""

import dataclasses
import json

import pytest

from mamba_jax.config import MambaConfig, RunConfig, WorldModelConfig, with_sections
from mamba_jax.presets import default_config
from mamba_jax.run_folder import FORMAT, FolderError, RunFolder, describe, fill_config


def description(steps=5, **sections):
    identity = {"options": {"env": "x", "seed": 0, "algo": "mamba"}, "environment": {"length": 3}}
    config = dataclasses.asdict(MambaConfig(run=RunConfig(steps=steps))) | sections
    return describe(["--env", "x"], identity | {"config": config})


def test_new_empty_and_own_folders_are_accepted(tmp_path):
    folder = RunFolder(tmp_path / "a" / "b")
    folder.check(description())
    assert not folder.path.exists()
    for _ in range(2):
        with folder.claimed(description()):
            assert folder.read_config()["options"]["env"] == "x"


def test_what_an_interrupted_start_leaves_is_accepted(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".config.json.part").write_text('{"form')
    with RunFolder(tmp_path).claimed(description()):
        pass


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": "other"}', json.dumps({"format": FORMAT})])
def test_foreign_folders_are_refused(tmp_path, content):
    (tmp_path / ("thesis.tex" if content is None else "config.json")).write_text(content or "years of work")
    before = sorted(tmp_path.iterdir())
    refused = pytest.raises(FolderError, match="not the folder of a run: choose another --logdir")
    with refused, RunFolder(tmp_path).claimed(description()):
        pass
    assert sorted(tmp_path.iterdir()) == before


def test_files_and_unwritable_places_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match="is a file"):
        RunFolder(tmp_path / "file").check(description())
    with pytest.raises(FolderError, match="cannot be written"), RunFolder(tmp_path / "file/run").claimed(description()):
        pass


def test_another_configuration_is_refused_by_name(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.claimed(description()):
        folder.metrics.touch()
    with pytest.raises(FolderError, match=r"\(config.run.steps is 5 there, 6 here\)"):
        folder.check(description(6))


def test_a_run_that_left_nothing_but_its_name_gives_its_folder_up(tmp_path):
    """One that did not fit into memory, say."""
    folder = RunFolder(tmp_path)
    with folder.claimed(description()):
        folder.checkpoints.mkdir()
    with folder.claimed(description(6)):
        assert folder.read_config()["config"]["run"]["steps"] == 6
        (folder.checkpoints / "1").mkdir()
    with pytest.raises(FolderError, match="another configuration"):
        folder.check(description())


def test_a_run_goes_on_for_more_steps_and_keeps_its_shorter_test(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.claimed(description()):
        (folder.checkpoints / "1").mkdir(parents=True)
        folder.evaluation.write_text("{}")
    with folder.claimed(longer := description(6)):
        assert folder.read_config()["config"]["run"]["steps"] == 6
        assert not folder.evaluation.exists() and (tmp_path / "eval-5.json").read_text() == "{}"
    assert not folder.goes_further(longer)
    with pytest.raises(FolderError, match=r"\(config.run.steps is 6 there, 5 here\)"):
        folder.check(description())


def test_a_baseline_that_plans_nothing_by_its_steps_goes_on(tmp_path):
    folder, short, longer = RunFolder(tmp_path), description(), description()
    for run, steps in ((short, 5), (longer, 6)):
        run["options"]["algo"] = "varibad"
        run["config"] = dataclasses.asdict(with_sections(default_config("varibad"), {"run": {"steps": steps}}))
    with folder.claimed(short):
        (folder.checkpoints / "1").mkdir(parents=True)
    with folder.claimed(longer):
        assert folder.read_config()["config"]["run"]["steps"] == 6


@pytest.mark.parametrize(
    ("algo", "sections", "checkpoints", "reason"),
    [
        ("hyperx", {}, ["1"], "more --steps, because bonus.anneal plans by them:"),
        ("mamba", {"optimizer": {"cooldown": 0.4}}, ["1"], "because optimizer.cooldown plans by them:"),
        ("mamba", {"optimizer": {"cooldown": 0.4}}, [], r"\(config.run.steps is 5 there, 6 here\)"),
        ("mamba", {}, [], r"\(config.run.steps is 5 there, 6 here\)"),
        ("mamba", {}, None, r"\(config.run.steps is 5 there, 6 here\)"),
    ],
)
def test_a_schedule_by_steps_and_a_run_without_checkpoints_are_not_lengthened(
    tmp_path, algo, sections, checkpoints, reason
):
    folder, short, longer = RunFolder(tmp_path), description(), description()
    for run, steps in ((short, 5), (longer, 6)):
        run["options"]["algo"] = algo
        config = with_sections(default_config(algo), sections | {"run": {"steps": steps}})
        run["config"] = dataclasses.asdict(config)
    with folder.claimed(short):
        folder.evaluation.write_text("{}")
        if checkpoints is not None:
            folder.checkpoints.mkdir()
            for name in checkpoints:
                (folder.checkpoints / name).mkdir()
    with pytest.raises(FolderError, match=reason), folder.claimed(longer):
        pass
    assert folder.evaluation.exists()


def test_a_part_of_the_configuration_that_is_younger_than_a_run_has_its_default(tmp_path):
    folder, old = RunFolder(tmp_path), dataclasses.asdict(WorldModelConfig())
    del old["normalise"]
    with folder.claimed(description(world_model=old)):
        folder.metrics.touch()
        assert fill_config(MambaConfig(), folder.read_config()["config"]) == MambaConfig(run=RunConfig(steps=5))
    folder.check(description())
    with pytest.raises(FolderError, match=r"\(config.world_model.normalise is False there, True here\)"):
        folder.check(description(world_model=old | {"normalise": True}))


def test_a_run_that_goes_on_elsewhere_says_so(tmp_path):
    folder, first = RunFolder(tmp_path), description() | {"commit": "a", "hardware": {"cpus": 2}}
    with folder.claimed(first):
        folder.metrics.touch()
        folder.note_resumption(first)
    assert "resumed" not in folder.read_config()
    for _ in range(2):
        with folder.claimed(other := first | {"commit": "b"}):
            folder.note_resumption(other)
    assert [start["commit"] for start in folder.read_config()["resumed"]] == ["b"]
    assert folder.read_config()["commit"] == "a"
    folder.note_resumption(first)
    assert [start["commit"] for start in folder.read_config()["resumed"]] == ["b", "a"]


def test_only_one_process_may_train(tmp_path):
    folder = RunFolder(tmp_path)
    refused = pytest.raises(FolderError, match="Another process")
    with folder.claimed(description()), refused, folder.claimed(description()):
        pass
    with folder.claimed(description()):
        pass


def test_configurations_come_back(tmp_path):
    config = MambaConfig(world_model=WorldModelConfig(deter=7, pairing="released"))
    saved = describe([], {"config": dataclasses.asdict(config)})
    assert json.loads(json.dumps(saved)) == saved
    assert fill_config(MambaConfig(), saved["config"]) == config
    with pytest.raises(ValueError, match=r"another version.*extra"):
        fill_config(MambaConfig(), saved["config"] | {"extra": 1})
