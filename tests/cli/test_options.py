"""The command line is read, checked and explained without training anything."""

import dataclasses
from pathlib import Path
from typing import Literal

import options as command_line
import pytest

import mamba_jax as mj


@dataclasses.dataclass(frozen=True)
class Inner:
    """Things. width, depth: of the net. kind: "a" or "b"."""

    width: int = 3
    depth: int = 2
    kind: Literal["a", "b"] = "a"
    rates: tuple[float, ...] = (0.1,)
    limit: float | None = None
    lambda_: bool = False


def parse(text):
    return command_line.parse(text.split())


def test_any_leaf_is_an_option():
    choice = parse(
        "--env rooms --subtasks 4 --size small --seed 7 --config.world_model.deter 40 --config.actor-critic.lambda 0.9"
        " --config.actor_critic.gradient=dynamics --config.data.capacity 1e6 --config.optimizer.model-rate 1e-3"
    )
    config = choice.algo.config
    assert (config.world_model.deter, config.actor_critic.lambda_, config.data.capacity) == (40, 0.9, 1_000_000)
    assert config.actor_critic.gradient == "dynamics" and config.optimizer.model_rate == 1e-3
    assert choice.logdir == Path("runs/rooms-4-mamba-small-s7")
    assert choice.algo.env.sub_episodes == 2


def test_steps_are_short_for_the_leaf():
    assert parse("--env halfcircle --steps 50000").algo.config.run.steps == 50_000
    assert parse("--env halfcircle --steps 50000 --config.run.steps 50_000").algo.config.run.steps == 50_000


def test_none_is_a_value():
    assert parse("--env halfcircle --algo rl2").algo.config.ppo.reward_clip == 10.0
    assert parse("--env halfcircle --algo rl2 --config.ppo.reward-clip none").algo.config.ppo.reward_clip is None


def test_the_number_of_sub_tasks_is_resolved():
    choice = parse("--env rooms --size debug")
    assert choice.options == parse("--env rooms --subtasks 3 --size debug").options
    assert choice.logdir == Path("runs/rooms-3-mamba-debug-s0")
    assert parse("--env halfcircle").options.subtasks is None


def test_options_of_the_environment():
    env = parse("--env halfcircle --sub-episodes 2 --length 30 --train-tasks 5 --boundary final --size debug").algo.env
    assert (env.sub_episodes, env.length, env.train_tasks, env.boundary) == (2, 30, 5, "final")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "--env is needed: choose one of halfcircle"),
        ("--env moon", "invalid choice: 'moon'.*halfcircle"),
        ("--env halfcircle --algo sac", "--algo: invalid choice: 'sac'"),
        ("--env halfcircle --subtasks 3", "halfcircle has no sub-tasks"),
        ("--env rooms --subtasks 1", "rooms with 1 sub-tasks is impossible"),
        ("--env halfcircle --physics mjx", "only one kind of physics"),
        ("--env halfcircle --length 0", "length is 0"),
        ("--env halfcircle --steps -1", "run.steps is -1: it must be positive"),
        ("--env halfcircle --steps 9000", "run.steps is 9,000, but what comes before .* takes 9,000: raise it"),
        (
            "--env halfcircle --algo varibad --steps 5000",
            "run.steps is 5,000, but what comes before .* takes 9,600: raise it",
        ),
        ("--env halfcircle --algo rl2 --steps 3e9", "at most 2,147,478,847, what 32 bits can count"),
        ("--env halfcircle --steps many", "--steps: .*'many' is not a number"),
        ("--env halfcircle --steps 1.5", "'1.5' is not a whole number"),
        ("--env halfcircle --seed -1", "-1 is not between 0 and"),
        ("--env halfcircle --seeds 0", "0 is less than 1"),
        ("--env halfcircle --steps 5 --config.run.steps 6", "contradict each other"),
        ("--env halfcircle --config.world-model.dete 6", "did you mean --config.world-model.deter"),
        ("--env halfcircle --sed 6", "did you mean --seed"),
        ("--env halfcircle extra", "Unknown argument extra"),
        ("--env halfcircle --config.world-model.pairing odd", "invalid choice: 'odd' .choose from aligned, released"),
        ("--env halfcircle --config.world-model.window 4", "world_model.window must be odd"),
        ("--env halfcircle --config.optimizer.model-rate nan", "'nan' is not a number"),
        ("--env halfcircle --config.horizon.initial 301", "exceeds the meta-episode"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(text, message):
    with pytest.raises(ValueError, match=message) as error:
        parse(text)
    assert "\n" not in str(error.value) and str(error.value).endswith((".", "?"))


@pytest.mark.parametrize("text", ["--help", "--env rooms --algo mamba --size debug -h"])
def test_help_shows_the_leaves(text, capsys):
    with pytest.raises(SystemExit) as end:
        parse(text)
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "--config.world-model.deter N" in shown and "--config.actor-critic.lambda X" in shown


@pytest.mark.parametrize("algo", mj.algorithms())
def test_every_leaf_is_explained(algo):
    config = parse(f"--env rooms --algo {algo} --size debug").algo.config
    assert [leaf.flag for leaf in command_line.config_leaves(config) if not leaf.help] == []


def test_leaves_of_every_type():
    leaves = {leaf.dest: leaf for leaf in command_line.config_leaves(Inner())}
    assert leaves["width"].help == leaves["depth"].help == "of the net"
    assert leaves["kind"].help == '"a" or "b"'
    assert leaves["rates"].parse("0.1,2") == (0.1, 2.0)
    assert leaves["limit"].parse("none") is None and leaves["limit"].parse("3") == 3.0
    assert leaves["lambda_"].flag == "--config.lambda" and leaves["lambda_"].parse("true") is True
