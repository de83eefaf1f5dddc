"""The command line of run.py: named options, then every leaf of the configuration that they choose."""

import argparse
import dataclasses
import difflib
import importlib.util
import re
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union

from runtime import Parser, UsageError

import envs
import mamba_jax as mj
from mamba_jax.config import MAX_INT32
from mamba_jax.presets import SIZES

MAX_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Options:
    """What identifies a run apart from its configuration; None leaves the choice to the environment."""

    env: str
    subtasks: int | None
    sub_episodes: int | None
    length: int | None
    train_tasks: int | None
    physics: str | None
    boundary: str
    algo: str
    size: str
    seed: int
    seeds: int

    def default_folder(self) -> Path:
        """Where the run goes unless --logdir says otherwise."""
        task = self.env if self.subtasks is None else f"{self.env}-{self.subtasks}"
        return Path("runs") / f"{task}-{self.algo}-{self.size}-s{self.seed}"


def split_row(row: str) -> tuple[str, int | None]:
    """Environment and sub-tasks of a row of results: "rooms-3" -> ("rooms", 3), "reacher" -> ("reacher", None)."""
    name, _, number = row.rpartition("-")
    return (name, int(number)) if number.isdigit() else (row, None)


class Choice(NamedTuple):
    """A checked command line. algo: the algorithm on its meta-environment, with the resolved configuration."""

    options: Options
    algo: mj.Algorithm
    logdir: Path
    wandb: bool

    def identity(self) -> dict[str, Any]:
        """What makes it this run: options, resolved sizes of the meta-environment, configuration."""
        env = self.algo.env
        return {
            "options": dataclasses.asdict(self.options),
            "environment": {name: getattr(env, name) for name in ("name", "subtasks", "sub_episodes", "length")},
            "config": dataclasses.asdict(self.algo.config),
        }


class Leaf(NamedTuple):
    """One number or word of a configuration. path: its attributes. parse: from a word of the command line.
    metavar: what the help shows for the word."""

    path: tuple[str, ...]
    default: Any
    help: str
    parse: Callable[[str], Any]
    metavar: str

    @property
    def flag(self) -> str:
        """Its option: --config.world-model.deter."""
        return spelling("--config." + ".".join(self.path))

    @property
    def dest(self) -> str:
        """Its name among the parsed arguments."""
        return ".".join(self.path)


def parse(arguments: list[str]) -> Choice:
    """Reads and checks a command line; prints the help and exits where it asks for that. Raises ValueError."""
    arguments = [spelling(word) if word.startswith("--") else word for word in arguments]
    named, rest = named_parser(add_help=False).parse_known_args(arguments)
    wants_help = bool({"-h", "--help"} & set(rest))
    if named.env is None and not wants_help:
        raise UsageError(f"--env is needed: choose one of {', '.join(envs.names())}.")
    options = Options(**{item.name: getattr(named, item.name) for item in dataclasses.fields(Options)})
    if options.env is None:
        options = dataclasses.replace(options, env=envs.names()[0])
    if options.subtasks is None:
        options = dataclasses.replace(options, subtasks=envs.default_subtasks(options.env))
    env = make_env(options)
    preset = mj.preset(options.algo, env, size=options.size)
    leaves = list(config_leaves(preset))
    values, unknown = full_parser(options, leaves).parse_known_args(arguments)
    refuse_unknown(unknown, leaves)
    if values.wandb and importlib.util.find_spec("wandb") is None:
        raise UsageError("--wandb needs the package wandb: install mamba-jax[wandb] or leave the option out.")
    algo = mj.make(options.algo, env, chosen_config(preset, leaves, values))
    check_steps(algo)
    return Choice(options, algo, values.logdir or options.default_folder(), values.wandb)


def check_steps(algo: mj.Algorithm) -> None:
    """Raises UsageError where the steps of a run leave none for training, or are more than its counters can hold."""
    steps, prefill = algo.config.run.steps, algo.config.prefill_steps(algo.env.num_steps)
    if steps <= prefill:
        raise UsageError(f"run.steps is {steps:,}, but what comes before training takes {prefill:,}: raise it.")
    if steps > (limit := MAX_INT32 - algo.steps_per_round):
        raise UsageError(f"run.steps is {steps:,}: it must be at most {limit:,}, what 32 bits can count.")


def make_env(options: Options) -> Any:
    """The meta-environment of these options. Raises ValueError."""
    return envs.make(
        options.env,
        subtasks=options.subtasks,
        sub_episodes=options.sub_episodes,
        length=options.length,
        train_tasks=options.train_tasks,
        boundary=options.boundary,
        physics=options.physics,
    )


def named_parser(**kwargs: Any) -> Parser:
    """The options that do not depend on the configuration."""
    parser = Parser(prog="run.py", formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)
    task = parser.add_argument_group("task")
    task.add_argument("--env", choices=envs.names(), help="the environment")
    task.add_argument("--subtasks", type=whole_number, metavar="N", help="rooms of rooms, goals of reacher")
    task.add_argument("--sub-episodes", type=whole_number, metavar="N", help="sub-episodes of a meta-episode")
    task.add_argument("--length", type=whole_number, metavar="T", help="steps of a sub-episode")
    task.add_argument(
        "--train-tasks", type=whole_number, metavar="M", help="train on M tasks only, drawn once; tests use fresh ones"
    )
    task.add_argument("--physics", metavar="KIND", help="for reacher: exact (closed form, the default) or mjx")
    boundary_help = "what is seen between sub-episodes: the new one's first state, or as released the old one's last"
    task.add_argument("--boundary", choices=("reset", "final"), default="reset", help=boundary_help)
    run = parser.add_argument_group("run")
    run.add_argument("--algo", choices=mj.algorithms(), default="mamba", help="the algorithm (default: mamba)")
    size_help = "paper (as published, the default), small (two CPU cores), fast (an accelerator) or "
    size_help += "debug (seconds; learns nothing)"
    run.add_argument("--size", choices=SIZES, default="paper", help=size_help)
    run.add_argument("--steps", type=whole_number, metavar="S", help="environment steps; short for --config.run.steps")
    run.add_argument("--seed", type=seed, default=0, metavar="S", help="of everything random (default: 0)")
    run.add_argument("--seeds", type=at_least_one, default=1, metavar="K", help="train K seeds at once (default: 1)")
    logdir_help = "the run's folder (default: runs/ENV[-SUBTASKS]-ALGO-SIZE-sSEED)"
    run.add_argument("--logdir", type=Path, metavar="DIR", help=logdir_help)
    distributed_help = "be one of several processes, each started with this command line on a host of its own"
    run.add_argument("--distributed", action="store_true", help=distributed_help)
    run.add_argument("--wandb", action="store_true", help="log to Weights & Biases too (needs the extra wandb)")
    return parser


def full_parser(options: Options, leaves: list[Leaf]) -> Parser:
    """All options; the help shows the configuration of the chosen algorithm, environment and size."""
    parser = named_parser(
        usage="run.py --env ENV [options]",
        description="Train a meta-RL agent. The same command line again goes on where an interrupted run stopped.",
        epilog=f"Defaults of --config: those of --env {options.env} --algo {options.algo} --size {options.size}.\n"
        "Exit codes: 0 finished; 1 training failed; 2 wrong command line; 130, 143 stopped by Ctrl-C, SIGTERM.",
    )
    groups: dict[str, Any] = {}
    for leaf in leaves:
        title = spelling("config." + ".".join(leaf.path[:-1])) if leaf.path[:-1] else "config"
        group = groups.setdefault(title, None) or parser.add_argument_group(title)
        groups[title] = group
        text = f"{leaf.help} (default: {leaf.default})".replace("%", "%%")
        # Only what is given becomes an attribute: None is a value, that of the word "none".
        group.add_argument(
            leaf.flag, dest=leaf.dest, type=leaf.parse, metavar=leaf.metavar, help=text, default=argparse.SUPPRESS
        )
    return parser


def refuse_unknown(unknown: list[str], leaves: list[Leaf]) -> None:
    """Raises UsageError for what no option took, with the nearest names."""
    if not unknown:
        return
    name = unknown[0].partition("=")[0]
    known = [leaf.flag for leaf in leaves] + [
        flag for action in named_parser()._actions for flag in action.option_strings
    ]
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.7)
    raise UsageError(f"Unknown argument {name}" + (f": did you mean {' or '.join(near)}?" if near else ": see --help."))


def chosen_config(preset: Any, leaves: list[Leaf], values: argparse.Namespace) -> Any:
    """The preset with the values of the command line."""
    given = {leaf.path: getattr(values, leaf.dest) for leaf in leaves if leaf.dest in values}
    if values.steps is not None:
        if given.get(("run", "steps"), values.steps) != values.steps:
            raise UsageError("--steps and --config.run.steps contradict each other: give one of them.")
        given["run", "steps"] = values.steps
    config = preset
    for path, value in given.items():
        config = replace_leaf(config, path, value)
    return config


def replace_leaf(config: Any, path: tuple[str, ...], value: Any) -> Any:
    """A copy of nested dataclasses with another value at `path`."""
    name, *rest = path
    return dataclasses.replace(
        config, **{name: replace_leaf(getattr(config, name), tuple(rest), value) if rest else value}
    )


def config_leaves(config: Any, path: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """The leaves of nested dataclasses, in order."""
    hints, help_texts = typing.get_type_hints(type(config)), field_help(config)
    for item in dataclasses.fields(config):
        value, here = getattr(config, item.name), (*path, item.name)
        if dataclasses.is_dataclass(value):
            yield from config_leaves(value, here)
        else:
            yield Leaf(here, value, help_texts[item.name], *word_parser(hints[item.name]))


def field_help(config: Any) -> dict[str, str]:
    """Help for the fields of a dataclass from its docstring, which explains them as "a, b: what they are. c: ..."."""
    names = [item.name for item in dataclasses.fields(config)]
    one = "|".join(re.escape(name) for name in names)
    pieces = re.split(rf"(?:^|(?<=\s))((?:{one})(?:, (?:{one}))*): ", " ".join((type(config).__doc__ or "").split()))
    texts: dict[str, str] = {}
    for heads, text in zip(pieces[1::2], pieces[2::2], strict=True):
        texts |= {name: text.strip().rstrip(".;") for name in heads.split(", ")}
    return {name: texts.get(name, "") for name in names}


def word_parser(hint: Any) -> tuple[Callable[[str], Any], str]:
    """How to read a value of this type from one word, and the word's metavar."""
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return one_of({str(choice): choice for choice in choices}), f"{{{','.join(map(str, choices))}}}"
    if origin in (Union, types.UnionType):
        parse, metavar = word_parser(next(choice for choice in choices if choice is not type(None)))
        return (lambda word: None if word == "none" else parse(word)), f"{metavar}|none"
    if origin is tuple:
        parse, metavar = word_parser(choices[0])
        return (lambda word: tuple(parse(part) for part in word.split(","))), f"{metavar},..."
    words = {
        bool: (one_of({"true": True, "false": False}), "{true,false}"),
        int: (whole_number, "N"),
        float: (number, "X"),
    }
    return words.get(hint, (str, "WORD"))


def one_of(values: dict[str, Any]) -> Callable[[str], Any]:
    """A parser of words that stand for values."""

    def choose(word: str) -> Any:
        if word not in values:
            raise argparse.ArgumentTypeError(f"invalid choice: '{word}' (choose from {', '.join(values)})")
        return values[word]

    return choose


def whole_number(word: str) -> int:
    """An integer; 1e6 and 1_000_000 are allowed."""
    value = number(word)
    if not value.is_integer():
        raise argparse.ArgumentTypeError(f"invalid value: '{word}' is not a whole number")
    return int(value)


def number(word: str) -> float:
    """A finite number."""
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if value - value != 0:
        raise argparse.ArgumentTypeError(f"invalid value: '{word}' is not a number")
    return value


def at_least_one(word: str) -> int:
    """A positive whole number."""
    value = whole_number(word)
    if value < 1:
        raise argparse.ArgumentTypeError(f"invalid value: {value} is less than 1")
    return value


def seed(word: str) -> int:
    """A seed of JAX."""
    value = whole_number(word)
    if not 0 <= value <= MAX_SEED:
        raise argparse.ArgumentTypeError(f"invalid value: {value} is not between 0 and {MAX_SEED}")
    return value


def spelling(option: str) -> str:
    """An option as it is registered: hyphens for underscores, none at the end of a name; the value is left alone."""
    name, equals, value = option.partition("=")
    return re.sub(r"-+(?=\.|$)", "", name.replace("_", "-")) + equals + value
