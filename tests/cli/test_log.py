"""Records and where they go."""

import gzip
import json
import sys
import types

import numpy as np
import pytest

from mamba_jax.log import MetricsFile, TensorBoard, WeightsAndBiases, read_metrics, scalars, summarise
from mamba_jax.run_folder import FolderError


def test_seeds_become_a_mean_and_a_list():
    record = summarise("train", {"a": np.float32(0.5), "b": np.array([1.0, 2.0])})
    assert record == {"train/a": 0.5, "train/b": 1.5, "train/b/seeds": [1.0, 2.0]}
    assert scalars(record) == {"train/a": 0.5, "train/b": 1.5, "train/b/seed_0": 1.0, "train/b/seed_1": 2.0}


def test_metrics_are_json_and_cut_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path, -1)
    for round in range(4):
        file.write({"round": round, "x": float("nan"), "y/seeds": [float("inf"), 1.0]})
    file.close()
    path.write_text(path.read_text() + '{"round": 4, "x"')
    file = MetricsFile(path, 2)
    file.write({"round": 3, "x": 1.0})
    file.close()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["round"] for record in records] == [0, 1, 2, 3]
    assert records[0] == {"round": 0, "x": None, "y/seeds": [None, 1.0]} and records == read_metrics(path)


def test_a_packed_file_is_read_like_the_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    (tmp_path / "metrics.jsonl.gz").write_bytes(gzip.compress(b'{"round": 0}\n{"round": 1}\n{"rou'))
    assert read_metrics(path) == [{"round": 0}, {"round": 1}]
    path.write_text('{"round": 5}\n')
    assert read_metrics(path) == [{"round": 5}]


@pytest.mark.parametrize("line", ["\0\0\0", "[1]", '{"round": }'])
def test_a_damaged_line_is_named_and_nothing_is_lost(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text := '{"round": 0}\n' + line + '\n{"round": 2}\n')
    for read in (read_metrics, lambda path: MetricsFile(path, 2)):
        with pytest.raises(FolderError, match=r"Line 2 of .*metrics.jsonl is damaged: delete that line"):
            read(path)
    assert path.read_text() == text


def test_tensorboard_files(tmp_path):
    logger = TensorBoard(tmp_path / "tensorboard", 0)
    logger.write({"env_steps": 10, "train/a": 1.0, "train/a/seeds": [1.0, 1.0]})
    logger.close()
    content = next((tmp_path / "tensorboard").iterdir()).read_bytes()
    assert b"train/a" in content and b"train/a/seed_1" in content


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package that notes what it is told."""
    calls = []
    run = types.SimpleNamespace(
        define_metric=lambda *a, **k: calls.append(("define", a, k)),
        log=lambda record: calls.append(("log", record)),
        finish=lambda: calls.append(("finish",)),
    )
    module = types.SimpleNamespace(init=lambda **kwargs: calls.append(("init", kwargs)) or run)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


def test_weights_and_biases(tmp_path, wandb):
    """The same folder gets the same identity, so that a resumed run goes on there too."""
    for _ in range(2):
        logger = WeightsAndBiases(tmp_path, {"created": "2030-01-02T03:04:05+00:00"})
        logger.write({"env_steps": 10, "train/a": 1.0})
        logger.close()
    inits = [call[1] for call in wandb if call[0] == "init"]
    assert inits[0]["id"] == inits[1]["id"] == f"{tmp_path.name}-202301020304050000".replace("2023", "2030")
    assert ("log", {"env_steps": 10, "train/a": 1.0}) in wandb and wandb[-1] == ("finish",)
