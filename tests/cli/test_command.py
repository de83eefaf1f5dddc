"""The real command in its own process: finishing, killing, stopping, resuming, refusing."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import evaluate as scripts
import imageio.v3 as imageio
import jax
import numpy as np
import pytest

import envs
import mamba_jax as mj
from mamba_jax.checkpoint import Checkpoints
from mamba_jax.log import read_metrics
from mamba_jax.policy import to_arrays
from mamba_jax.run import run_keys
from mamba_jax.run_state import resume

SCRIPTS = Path(__file__).resolve().parents[2] / "experiments"

TASK = ["--env", "rooms", "--subtasks", "2", "--length", "20", "--size", "debug", "--steps", "2400", "--seed", "5"]
ROUNDS = 29
FLAGS = "--xla_backend_optimization_level=0 --xla_gpu_exclude_nondeterministic_ops=true"
TIMEOUT = 900.0  # seconds; a minute where nothing else runs
EVERY_ROUND = ["--config.run.checkpoint-minutes", "1e-9"]


class Place:
    """A folder with its own cache of compiled programs, and the scripts in it."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        here = {"XDG_CACHE_HOME": str(folder / "cache"), "XLA_FLAGS": FLAGS}
        self.environment = {name: x for name, x in os.environ.items() if name not in ("NPROC", "MUJOCO_GL")} | here

    def start(self, script, *arguments, **environment):
        command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.processes.append(subprocess.Popen(command, cwd=self.folder, env=self.environment | environment, **pipes))
        return self.processes[-1]

    def start_two(self, script, *arguments):
        """Two processes whose devices JAX uses together."""
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        shared = {"JAX_PLATFORMS": "cpu", "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
        return [self.start(script, "--distributed", *arguments, JAX_PROCESS_ID=i, **shared) for i in "01"]

    def run(self, script, *arguments, **environment):
        """(exit code, standard output, standard error)"""
        process = self.start(script, *arguments, **environment)
        output, errors = process.communicate(timeout=TIMEOUT)
        return process.returncode, output, errors


def wait_until(process, condition):
    """Waits for a condition while a process runs."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)


def only_sentence(errors):
    """What run.py itself said on standard error, where slow libraries may complain too."""
    (sentence,) = [line for line in errors.splitlines() if line.startswith("run.py: ")]
    assert "Traceback" not in errors
    return sentence


def rounds_in(metrics):
    """Number of complete lines."""
    return metrics.read_text().count("\n") if metrics.exists() else 0


def saved_numbers(run):
    """Numbers of the complete checkpoints."""
    return sorted(int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdigit())


def is_writing(run):
    """Whether a checkpoint is half-written; or that many went by unseen, on a machine that is too busy to look."""
    return any((run / "checkpoints").glob("*.orbax-checkpoint-tmp")) or rounds_in(run / "metrics.jsonl") > ROUNDS // 3


def whole_state(path):
    """All arrays of the newest checkpoint, the replay included, and the best policy."""
    run = scripts.load_run(path)
    current = resume(run, Checkpoints(run.folder.checkpoints, read_only=True))
    return to_arrays(current.state), current.best


def without_seconds(path):
    """The records of a run apart from the time they took."""
    return [record | {"seconds": 0} for record in read_metrics(path / "metrics.jsonl")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    found = Place(tmp_path_factory.mktemp("place"))
    yield found
    for process in found.processes:
        process.kill()


@pytest.fixture(scope="module")
def finished(place):
    """A run that nothing interrupted, in the default folder."""
    code, output, errors = place.run("run.py", *TASK)
    assert code == 0, errors
    return place.folder / "runs" / "rooms-2-mamba-debug-s5", output, errors


def test_a_run_leaves_its_folder(finished):
    folder, output, errors = finished
    assert "Error" not in errors
    assert "Compiled the train step in" in output and "world model loss" in output and "Finished: return" in output
    config = json.loads((folder / "config.json").read_text())
    assert config["command"] == TASK and config["config"]["run"]["steps"] == 2400 and config["versions"]["jax"]
    assert config["hardware"]["backend"] and config["environment"]["length"] == 20
    records = read_metrics(folder / "metrics.jsonl")
    assert [record["round"] for record in records] == list(range(ROUNDS + 1))
    assert records[-1]["env_steps"] == 2400 and records[-1]["updates"] > 0
    assert np.isfinite([record["train/world_model/loss"] for record in records[1:]]).all()
    result = json.loads((folder / "eval.json").read_text())
    for found in (result, result["best"], result["last"]):
        assert found["tasks"] == 8 and len(found["return_per_sub_episode"]) == 2
        np.testing.assert_allclose(found["return_mean"], sum(found["return_per_sub_episode"]), rtol=1e-5)
    assert imageio.imread(folder / "rollout.gif").ndim == 4
    assert imageio.imread(folder / "learning_curve.png").shape[0] > 100
    assert list((folder / "tensorboard").iterdir())


def test_the_same_command_on_a_finished_run_says_so(place, finished):
    folder = finished[0]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix}
    code, output, errors = place.run("run.py", *TASK)
    assert code == 0 and "is finished: return" in output, errors
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix} == before


@pytest.mark.parametrize("which", ["best", "last"])
def test_the_recorded_evaluation_comes_out_again(place, finished, which):
    folder = finished[0]
    (folder / "rollout.gif").unlink(missing_ok=True)
    options = ["--gif"] if which == "best" else ["--checkpoint", "last"]
    code, output, errors = place.run("evaluate.py", folder, *options)
    assert code == 0, errors
    result, recorded = json.loads(output), json.loads((folder / "eval.json").read_text())[which]
    assert result.pop("checkpoint") == which
    assert result == {name: value for name, value in recorded.items() if name != "eval_return_mean"}
    assert (folder / "rollout.gif").exists() == (which == "best")


def test_a_run_is_evaluated_on_other_latents(place, finished):
    outputs = {}
    for latents in ("sampled", "mode"):
        code, output, errors = place.run("evaluate.py", finished[0], "--latents", latents)
        assert code == 0, errors
        outputs[latents] = json.loads(output)
    recorded = json.loads((finished[0] / "eval.json").read_text())["best"]
    assert outputs["sampled"]["return_mean"] == recorded["return_mean"] != outputs["mode"]["return_mean"]


def test_latents_are_those_of_dreamers():
    run = SimpleNamespace(single=SimpleNamespace(name="rl2"), folder=SimpleNamespace(path="runs/a"))
    with pytest.raises(ValueError, match="is a run of rl2, which has no latents to choose"):
        scripts.with_latents(run, "mode")


def test_a_trained_agent_comes_back_in_python(finished):
    env = envs.make("rooms", subtasks=2, length=20)
    recorded = json.loads((finished[0] / "eval.json").read_text())
    for which in ("best", "last"):
        algo, state = mj.load(finished[0], env, which=which)
        score = jax.jit(lambda state, algo=algo: mj.evaluate(algo, state, run_keys(5).test, num_tasks=8))(state)
        np.testing.assert_allclose(score.return_mean, recorded[which]["return_mean"], rtol=1e-5)
    for words, message in (({"which": "first"}, "choose best or last"), ({"seed": 1}, "choose one below 1")):
        with pytest.raises(ValueError, match=message):
            mj.load(finished[0], env, **words)
    with pytest.raises(ValueError, match="whose environment is rooms: load it with that one, not reacher"):
        mj.load(finished[0], envs.make("reacher"))
    with pytest.raises(ValueError, match="whose boundary is reset: load it with that one, not final"):
        mj.load(finished[0], envs.make("rooms", subtasks=2, length=20, boundary="final"))
    with pytest.raises(ValueError, match="whose number of sub-tasks is 2: load it with that one, not 3"):
        mj.load(finished[0], envs.make("rooms", subtasks=3, length=20))


def test_curves_are_drawn(place, finished):
    code, _, errors = place.run("plot.py", finished[0], "--out", "curves.png")
    assert code == 0, errors
    assert (place.folder / "curves.png").exists()
    (place.folder / "notes").mkdir()
    code, _, errors = place.run("plot.py", "notes", finished[0], "nowhere", "--out", "others.png")
    assert code == 0 and errors.count("plot.py: left out: ") == 2 and (place.folder / "others.png").exists()
    code, _, errors = place.run("plot.py", "notes", "--out", "none.png")
    assert code == 2 and "notes is not the folder of a run" in errors and not (place.folder / "none.png").exists()


def ends(processes):
    """Exit code, standard output and error of each."""
    texts = [process.communicate(timeout=TIMEOUT) for process in processes]
    return [(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]


def test_two_processes_train_one_run(place):
    """The second is told to stop, both do, and go on; to the end bit for bit as one process with two devices."""
    together, alone, task = place.folder / "together", place.folder / "alone", [*TASK, "--algo", "rl2"]
    processes = place.start_two("run.py", *task, "--logdir", together)
    wait_until(processes[0], lambda: rounds_in(together / "metrics.jsonl") > 3)
    processes[1].terminate()
    first, second = ends(processes)
    assert (first[0], second[0]) == (143, 143), (first, second)
    assert "Stopped; the same command line goes on" in first[1] and "Stopped" not in second[1]

    first, second = ends(place.start_two("run.py", *task, "--logdir", together))
    assert (first[0], second[0]) == (0, 0) and "Finished" in first[1] and "Finished" not in second[1], (first, second)
    two = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{FLAGS} --xla_force_host_platform_device_count=2"}
    assert place.run("run.py", *task, "--logdir", alone, **two)[0] == 0
    assert without_seconds(together) == without_seconds(alone)
    results = [json.loads((path / "eval.json").read_text()) | {"seconds": 0} for path in (together, alone)]
    assert results[0] == results[1]


def test_several_processes_that_cannot_train_leave_together(place):
    path = place.folder / "claimed"
    path.mkdir()
    with (path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (code, _, errors), (other_code, _, other_errors) = ends(place.start_two("run.py", *TASK, "--logdir", path))
    assert (code, other_code) == (2, 2)
    assert "Another process is training" in only_sentence(errors)
    assert "The first process cannot train" in only_sentence(other_errors)
    code, _, errors = place.run("run.py", *TASK, "--distributed", "--logdir", path)
    assert code == 2 and "--distributed finds no other processes" in only_sentence(errors)


def test_killed_stopped_and_resumed_equals_uninterrupted(place, finished):
    """SIGKILL while a checkpoint is written, SIGKILL in training, SIGTERM; then to the end, bit for bit the same."""
    path = place.folder / "killed"
    command = ["run.py", *TASK, *EVERY_ROUND, "--logdir", path]

    process = place.start(*command)
    wait_until(process, lambda: len(saved_numbers(path)) >= 2 and is_writing(path))
    process.kill()
    process.communicate()
    complete, lines = saved_numbers(path), rounds_in(path / "metrics.jsonl")

    process = place.start(*command)
    wait_until(process, lambda: rounds_in(path / "metrics.jsonl") > lines + 1)
    process.kill()
    output, _ = process.communicate()
    assert f"Going on from {path} at {80 * (complete[-1] + 1)} environment steps" in output
    assert rounds_in(path / "metrics.jsonl") - 1 <= saved_numbers(path)[-1] + 1  # one round at most is lost

    process = place.start(*command)
    lines = rounds_in(path / "metrics.jsonl")
    wait_until(process, lambda: rounds_in(path / "metrics.jsonl") > lines + 1)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 143 and "Stopped; the same command line goes on from" in output, errors
    assert saved_numbers(path)[-1] == rounds_in(path / "metrics.jsonl") - 1 < ROUNDS

    code, output, errors = place.run(*command)
    assert code == 0 and "Going on from" in output and "Finished" in output, errors
    assert without_seconds(path) == without_seconds(finished[0])
    jax.tree.map(np.testing.assert_array_equal, whole_state(path), whole_state(finished[0]))


def test_a_finished_run_goes_on_for_more_steps(place, finished):
    """To where one of that length ends, bit for bit."""
    path = place.folder / "longer"
    for steps in (["--steps", "1200"], []):
        code, output, errors = place.run("run.py", *TASK, *steps, "--logdir", path)
        assert code == 0 and "Finished" in output, errors
    assert f"Going on from {path} at 1,200 environment steps" in output
    assert without_seconds(path) == without_seconds(finished[0])
    jax.tree.map(np.testing.assert_array_equal, whole_state(path), whole_state(finished[0]))
    assert (path / "eval-1200.json").exists() and (path / "eval.json").exists()


def test_refusals_write_nothing(place, finished):
    """An unknown environment, somebody's folder, a run of another configuration, a damaged checkpoint."""
    foreign = place.folder / "thesis"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    path = finished[0]
    before = sorted(place.folder.rglob("*"))
    for arguments, message in [
        (["--env", "moon"], "invalid choice: 'moon'"),
        ([*TASK, "--logdir", foreign], "not the folder of a run"),
        ([*TASK, "--logdir", path, "--config.data.batch", "3"], "config.data.batch is 2 there, 3 here"),
    ]:
        code, output, errors = place.run("run.py", *arguments)
        assert code == 2 and output == "" and message in only_sentence(errors)
    assert sorted(place.folder.rglob("*")) == before


def test_a_damaged_checkpoint_is_one_sentence(place, finished):
    path = place.folder / "damaged"
    shutil.copytree(finished[0], path)
    (path / "eval.json").unlink()
    victim = max((path / "checkpoints").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    victim.write_bytes(victim.read_bytes()[:-100])
    code, _, errors = place.run("run.py", *TASK, "--logdir", path)
    assert code == 1 and "cannot be read" in only_sentence(errors)
    assert rounds_in(path / "metrics.jsonl") == ROUNDS + 1
