"""Train an agent: `python experiments/run.py --env reacher --subtasks 3`; `--help` lists all options."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from runtime import UsageError, configure_jax, join_processes, one_sentence_errors, run_script, set_environment

if TYPE_CHECKING:
    from options import Choice

    from mamba_jax.run_folder import RunFolder


def main(arguments: list[str]) -> int:
    """Runs a command line; returns the exit code."""
    set_environment(arguments)
    configure_jax()
    if "--distributed" in arguments:  # before anything asks JAX for its devices
        with one_sentence_errors("run.py", {UsageError: 2}):
            join_processes()
    from options import parse

    from mamba_jax.checkpoint import CheckpointError
    from mamba_jax.processes import leads
    from mamba_jax.run_folder import FolderError
    from mamba_jax.train import Stopped, TrainingFault

    with one_sentence_errors("run.py", {ValueError: 2}):
        choice = parse(arguments)
    try:
        with one_sentence_errors("run.py", {FolderError: 2, TrainingFault: 1, CheckpointError: 1, OSError: 1}):
            run(choice, arguments)
    except Stopped as stopped:
        if leads():
            print(f"Stopped; the same command line goes on from {choice.logdir}.")
        return 128 + stopped.number
    return 0


def run(choice: Choice, arguments: list[str]) -> None:
    """Trains in the folder of the run, unless it is finished."""
    from rich.console import Console

    from mamba_jax.final import outcome
    from mamba_jax.processes import leads
    from mamba_jax.progress import Reporter
    from mamba_jax.run import make_run
    from mamba_jax.run_folder import RunFolder, describe, in_words
    from mamba_jax.train import train

    options, folder = choice.options, RunFolder(choice.logdir)
    reporter = Reporter(None if leads() else Console(quiet=True))
    description = describe(arguments, choice.identity())
    folder.check(description)
    training = make_run(choice.algo, folder, reporter, seed=options.seed, num_seeds=options.seeds)
    with claimed_by_first(folder, description):
        if folder.evaluation.exists():
            reporter.message(f"{folder.path} is finished: {outcome(folder.read_evaluation())}.")
            return
        if leads():
            folder.note_resumption(description)
        reporter.message(f"Training on {in_words(description['hardware'])}.")
        train(training, lambda last_round, first_step: loggers(choice, folder, last_round, first_step))


@contextlib.contextmanager
def claimed_by_first(folder: RunFolder, description: dict[str, Any]) -> Iterator[None]:
    """`folder.claimed` by the first of the processes; where it cannot, all raise FolderError."""
    from mamba_jax.processes import largest, leads
    from mamba_jax.run_folder import FolderError

    refusal = None
    with contextlib.ExitStack() as stack:
        if leads():
            try:
                stack.enter_context(folder.claimed(description))
            except FolderError as error:
                refusal = error
        if largest(refusal is not None):
            raise refusal or FolderError(f"The first process cannot train in {folder.path}.")
        yield


def loggers(choice: Choice, folder: Any, last_round: int, first_step: int) -> list[Any]:
    """Where the metrics go that follow round `last_round`, from environment step `first_step` on."""
    from mamba_jax.log import MetricsFile, TensorBoard, WeightsAndBiases
    from mamba_jax.processes import leads

    if not leads():
        return []
    found: list[Any] = [MetricsFile(folder.metrics, last_round), TensorBoard(folder.tensorboard, first_step)]
    return found + ([WeightsAndBiases(folder.path, folder.read_config())] if choice.wandb else [])


if __name__ == "__main__":
    run_script(main)
