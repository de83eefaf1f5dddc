"""Evaluate the policy of a run from its folder alone: `python experiments/evaluate.py RUN`.

With the number of tasks of the final test, the default, the numbers in eval.json come out again.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from runtime import Parser, configure_jax, one_sentence_errors, run_script, set_environment


def main(arguments: list[str]) -> int:
    """Runs a command line; returns the exit code."""
    set_environment(arguments)
    configure_jax()
    from mamba_jax.checkpoint import CheckpointError

    with one_sentence_errors("evaluate.py", {ValueError: 2, CheckpointError: 1}):
        result = evaluate(parser().parse_args(arguments))
    print(json.dumps(result, indent=2))
    return 0


def parser() -> Parser:
    """The command line."""
    from options import at_least_one

    found = Parser(prog="evaluate.py", description="Evaluate the policy of a run on fresh tasks.")
    found.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    found.add_argument(
        "--tasks", type=at_least_one, metavar="N", help="fresh tasks (default: as in the run's final test)"
    )
    found.add_argument("--checkpoint", choices=("best", "last"), default="best", help="which policy (default: best)")
    found.add_argument(
        "--latents", choices=("sampled", "mode"), help="what MAMBA and the Dreamers act on (default: as in the run)"
    )
    found.add_argument("--gif", action="store_true", help="write RUN/rollout.gif too")
    return found


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    """The result of a policy in the manner of eval.json. Raises ValueError or CheckpointError."""
    from mamba_jax.final import compile_test, summary, write_animation
    from mamba_jax.run_state import load_policy

    run = load_run(options.run)
    if options.latents:
        run = with_latents(run, options.latents)
    tasks = run.single.config.run.test_tasks if options.tasks is None else options.tasks
    policy, rounds = load_policy(run, options.checkpoint)
    score = compile_test(run, policy, tasks)(policy)
    if options.gif:
        write_animation(run, policy, score)
    return {"checkpoint": options.checkpoint, "round": rounds} | summary(score)


def with_latents(run: Any, latents: str) -> Any:
    """The run with another `world_model.eval_latents`. Raises ValueError where the algorithm has none."""
    from mamba_jax.algos.registry import make
    from mamba_jax.config import with_sections
    from mamba_jax.presets import DREAMERS

    single = run.single
    if single.name not in DREAMERS:
        raise ValueError(
            f"{run.folder.path} is a run of {single.name}, which has no latents to choose: leave out --latents."
        )
    config = with_sections(single.config, {"world_model": {"eval_latents": latents}})
    return dataclasses.replace(run, single=make(single.name, single.env, config))


def load_run(path: Path) -> Any:
    """The run that a folder describes; what is said about it goes to standard error."""
    from options import Options, make_env
    from rich.console import Console

    from mamba_jax.load import open_run
    from mamba_jax.progress import Reporter
    from mamba_jax.run_folder import RunFolder, fill_config

    folder = RunFolder(path)
    nothing: dict[str, Any] = dict.fromkeys(item.name for item in dataclasses.fields(Options))
    options = fill_config(Options(**nothing), folder.read_config()["options"])
    return open_run(folder, make_env(options), Reporter(Console(stderr=True, highlight=False)))


if __name__ == "__main__":
    run_script(main)
