"""The host loop on a tiny algorithm: resuming, best policies, faults, several seeds."""

import dataclasses
import io
import json
import os
import signal

import jax
import numpy as np
import pytest
from rich.console import Console
from tiny import LANES, lifetime_env, tiny

from mamba_jax.log import MetricsFile, read_metrics
from mamba_jax.progress import Reporter
from mamba_jax.run import make_run
from mamba_jax.run_folder import RunFolder, describe
from mamba_jax.run_state import begin, load_policy
from mamba_jax.train import Stopped, TrainingFault, train


class SignalAt:
    """A logger that sends the process a signal after a round."""

    def __init__(self, round, number=signal.SIGTERM):
        self.round, self.number = round, number

    def write(self, record):
        if record["round"] == self.round:
            os.kill(os.getpid(), self.number)

    def close(self):
        pass


def start(path, algo, *, num_seeds=1, seed=0, also=(), devices=None):
    """Trains `algo` in a folder, on all devices (conftest.py makes four) or these; returns the run."""
    folder = RunFolder(path)
    environment = {"name": "lifetime", "subtasks": None, "sub_episodes": 2, "length": 3}
    options = {"env": "lifetime", "algo": "tiny", "size": "debug", "seed": seed, "seeds": num_seeds}
    identity = {"options": options, "environment": environment, "config": dataclasses.asdict(algo.config)}
    with folder.claimed(describe([], identity)):
        reporter = Reporter(Console(file=io.StringIO()))
        run = make_run(algo, folder, reporter, seed=seed, num_seeds=num_seeds, devices=devices)
        train(run, lambda last_round, first_step: [MetricsFile(folder.metrics, last_round), *also])
    return run


def without_seconds(folder):
    """What training computed, as recorded."""
    result = json.loads(folder.evaluation.read_text())
    return [record | {"seconds": 0} for record in read_metrics(folder.metrics)], result | {"seconds": 0}


def finals(run):
    """The last and the best policy."""
    return [load_policy(run, which) for which in ("last", "best")]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A run that nothing interrupted: prefill and nine rounds of 12 steps, an evaluation in every second."""
    return start(tmp_path_factory.mktemp("runs") / "reference", tiny())


def test_a_run_leaves_its_files(reference):
    folder = reference.folder
    records, result = without_seconds(folder)
    assert [record["round"] for record in records] == list(range(10))
    assert [record["env_steps"] for record in records] == [12 * i for i in range(1, 11)]
    assert [record["round"] for record in records if "eval/return_mean" in record] == [0, 2, 4, 6, 8, 9]
    assert records[3]["updates"] == 9 and records[3]["train/collect/return"] is None
    assert set(result) >= {"return_mean", "return_std", "return_per_sub_episode", "tasks", "best", "last"}
    assert result["tasks"] == 5 and len(result["return_per_sub_episode"]) == 2
    assert folder.curve.exists() and not folder.animation.exists()  # the environment cannot be rendered


def test_the_best_policy_is_kept(reference):
    """Best in return is the highest parameter among those evaluated; the first one wins a tie."""
    records, result = without_seconds(reference.folder)
    scores = {r["round"]: r["eval/return_mean"] for r in records if "eval/return_mean" in r}
    assert result["best"]["round"] == max(scores, key=scores.get)
    assert result["best"]["eval_return_mean"] == max(scores.values())
    (last, last_round), (best, best_round) = finals(reference)
    gains = [record["train/actor/entropy"] for record in records[1:]]
    assert last_round == 9 and last["gain"] == np.float32(gains[-1])
    assert best_round == result["best"]["round"]
    if best_round:
        assert best["gain"] == np.float32(gains[best_round - 1])


@pytest.mark.parametrize("number, rounds", [(signal.SIGTERM, (0, 3)), (signal.SIGINT, (4,))])
def test_a_stopped_run_ends_like_one_that_was_not(reference, tmp_path, number, rounds):
    for round in rounds:
        with pytest.raises(Stopped) as stopped:
            start(tmp_path / "run", tiny(), also=[SignalAt(round, number)])
        assert stopped.value.number == number
        assert [record["round"] for record in read_metrics(tmp_path / "run/metrics.jsonl")] == list(range(round + 1))
    run = start(tmp_path / "run", tiny())
    assert without_seconds(run.folder) == without_seconds(reference.folder)
    jax.tree.map(np.testing.assert_array_equal, finals(run), finals(reference))


def test_checkpoints_do_not_change_training_and_lines_after_them_are_cut(reference, tmp_path):
    """As after SIGKILL: the metrics are ahead of the checkpoint, the last line half-written."""
    algo = tiny(checkpoint_minutes=1e-9)
    with pytest.raises(Stopped):
        start(tmp_path / "run", algo, also=[SignalAt(5)])
    metrics = tmp_path / "run/metrics.jsonl"
    lines = metrics.read_text()
    metrics.write_text(lines + lines.splitlines()[-1].replace('"round": 5', '"round": 6') + "\n" + lines[:20])
    run = start(tmp_path / "run", algo)
    assert without_seconds(run.folder) == without_seconds(reference.folder)


def test_what_was_written_before_the_first_checkpoint_is_written_once(reference, tmp_path):
    """As after SIGKILL in the first rounds."""
    (tmp_path / "run").mkdir()
    first = reference.folder.metrics.read_text().splitlines(keepends=True)[:2]
    (tmp_path / "run/metrics.jsonl").write_text("".join(first))
    (tmp_path / "run/config.json").write_text(reference.folder.config.read_text())
    run = start(tmp_path / "run", tiny())
    assert without_seconds(run.folder) == without_seconds(reference.folder)


def test_a_stop_during_the_final_test_is_made_up_for(reference, tmp_path):
    with pytest.raises(Stopped):
        start(tmp_path / "run", tiny(), also=[SignalAt(9)])
    assert not (tmp_path / "run/eval.json").exists()
    run = start(tmp_path / "run", tiny())
    assert without_seconds(run.folder) == without_seconds(reference.folder)


def test_nan_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    algo = tiny(bad_round=5, checkpoint_minutes=1e-9)
    with pytest.raises(TrainingFault, match=r"in round 5 because world_model/loss_reward is nan"):
        start(tmp_path / "run", algo)
    records = read_metrics(tmp_path / "run/metrics.jsonl")
    run = make_run(algo, RunFolder(tmp_path / "run"), Reporter(Console(file=io.StringIO())), seed=0)
    policy, round = load_policy(run, "last")
    assert round == 4 and policy["gain"] == np.float32(records[4]["train/actor/entropy"])
    with pytest.raises(TrainingFault, match="in round 5"):
        start(tmp_path / "run", algo)


def test_nan_names_the_seed(tmp_path):
    with pytest.raises(TrainingFault, match="world_model/loss_reward is nan for seed 0;"):
        start(tmp_path / "run", tiny(bad_round=2), num_seeds=2)


def test_a_spoilt_policy_is_not_saved(tmp_path):
    """The loss of a round whose last update spoils the parameters is still fine."""
    algo = tiny(spoil=3, checkpoint_minutes=1e-9)
    with pytest.raises(TrainingFault, match="in round 3 because gain is no longer finite"):
        start(tmp_path / "run", algo)
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["1", "2"]


def test_several_seeds(tmp_path):
    """Names hold means, `/seeds` the values; each seed keeps its own best policy, also across a stop."""
    with pytest.raises(Stopped):
        start(tmp_path / "run", tiny(), num_seeds=3, also=[SignalAt(4)])
    run = start(tmp_path / "run", tiny(), num_seeds=3)
    records, result = without_seconds(run.folder)
    gains = np.array([record["train/actor/entropy/seeds"] for record in records[1:]], np.float32)
    assert gains.shape == (9, 3)
    np.testing.assert_allclose(gains.mean(1), [record["train/actor/entropy"] for record in records[1:]], rtol=1e-5)
    scores = {r["round"]: r["eval/return_mean/seeds"] for r in records if "eval/return_mean" in r}
    best, rounds = load_policy(run, "best")
    for seed in range(3):
        assert rounds[seed] == max(scores, key=lambda round, i=seed: scores[round][i])
        if rounds[seed]:
            assert best["gain"][seed] == gains[rounds[seed] - 1, seed]
    assert len(result["best"]["seeds"]) == 3 and result["best"]["round"] == rounds
    means = [seed["return_mean"] for seed in result["best"]["seeds"]]
    np.testing.assert_allclose(result["return_mean"], np.mean(means), rtol=1e-6)
    np.testing.assert_allclose(result["best"]["return_std_over_seeds"], np.std(means), rtol=1e-6)


@pytest.mark.skipif(len(jax.devices()) < 4, reason="conftest.py makes four devices of a CPU only")
@pytest.mark.parametrize("num_seeds", [1, 4])
def test_a_run_is_the_same_on_other_devices_and_goes_on_there(tmp_path, num_seeds):
    """On one device; begun on one and ended on four; on four, between whose seeds or lanes it is shared out."""
    one, four = jax.devices()[:1], jax.devices()[:4]
    with pytest.raises(Stopped):
        start(tmp_path / "moved", tiny(), num_seeds=num_seeds, also=[SignalAt(4)], devices=one)
    runs = [
        start(tmp_path / name, tiny(), num_seeds=num_seeds, devices=devices)
        for name, devices in (("one", one), ("moved", four), ("four", four))
    ]
    expected, *others = (without_seconds(run.folder) for run in runs)
    assert others == [expected, expected]
    spread = begin(runs[-1]).state
    assert all(len(leaf.sharding.device_set) == 4 for leaf in jax.tree.leaves(spread))
    assert spread.replay.sharding.shard_shape(spread.replay.shape)[0] == 1


def test_seeds_are_different_and_reproducible():
    env = lifetime_env()
    gains = []
    for seed in (0, 0, 1):
        run = make_run(tiny(env), RunFolder("unused"), Reporter(Console(file=io.StringIO())), seed=seed)
        gains.append(float(begin(run).state.gain))
        assert run.lanes == LANES
    assert gains[0] == gains[1] != gains[2]
