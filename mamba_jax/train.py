"""The host's side of training: rounds, evaluations, checkpoints and faults."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.errors import JaxRuntimeError

from mamba_jax.checkpoint import Checkpoints
from mamba_jax.final import final_test
from mamba_jax.log import Logger, Record, score_metrics, summarise
from mamba_jax.policy import Arrays, choose_better, evaluate_policy
from mamba_jax.processes import largest
from mamba_jax.run import Best, Run, shardings_of
from mamba_jax.run_state import RunState, begin, resume, save
from mamba_jax.sharding import replicated
from mamba_jax.signals import StopRequest
from mamba_jax.types import Metrics, Score


class TrainingFault(RuntimeError):
    """A quantity that is not finite, or too little memory; the message is one sentence that names it."""


class Stopped(Exception):
    """The run was told to stop; nothing that it trained is lost. number: the signal."""

    def __init__(self, number: int):
        super().__init__(f"stopped by signal {number}")
        self.number = number


class Programs(NamedTuple):
    """Compiled functions. step: state -> (state, metrics). judge: (policy, best, round) -> (score, best)."""

    step: Callable[[Any], tuple[Any, Metrics]]
    judge: Callable[[Arrays, Best, jax.Array], tuple[Score, Best]]


def train(run: Run, make_loggers: Callable[[int, int], list[Logger]]) -> None:
    """Trains from the newest checkpoint, or from the beginning, to the end; then tests the last and the best policy.

    make_loggers: (last recorded round, first environment step of what follows) -> loggers.
    Raises Stopped after SIGTERM or Ctrl-C, TrainingFault when a loss is not finite or memory is exhausted,
    CheckpointError when the newest checkpoint is damaged or one cannot be written.
    """
    checkpoints = Checkpoints(run.folder.checkpoints)
    with StopRequest() as stop, memory_faults():
        current = resume(run, checkpoints) or begin(run)
        if current.saved_round >= 0:
            run.reporter.message(f"Going on from {run.folder.path} at {current.env_steps:,} environment steps.")
        leave_if_told(stop)
        if current.env_steps < run.single.config.run.steps:
            programs = compile_programs(run)
            leave_if_told(stop)
            with contextlib.ExitStack() as stack:
                loggers = make_loggers(current.saved_round, current.env_steps + (current.saved_round >= 0))
                for logger in loggers:
                    stack.callback(logger.close)
                train_rounds(run, current, programs, checkpoints, loggers, stop)
        leave_if_told(stop)
        if not final_test(run, current, stop):
            leave_if_told(stop)


@contextlib.contextmanager
def memory_faults() -> Iterator[None]:
    """Turns what JAX raises where memory is exhausted into a TrainingFault."""
    try:
        yield
    except JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        advice = "train fewer seeds, or lower the lanes, the batch, the capacity or the sizes of the networks"
        raise TrainingFault(f"The run needs more memory than there is: {advice}.") from None


def leave_if_told(stop: StopRequest) -> None:
    """Raises Stopped if a signal came."""
    if number := stop.told():
        raise Stopped(number)


def compile_programs(run: Run) -> Programs:
    """Compiles the train step, which takes over the state's memory, and the evaluation."""
    config, state = run.single.config.run, run.state_shapes()
    best = jax.eval_shape(run.no_policy, state)

    def judge(policy: Arrays, best: Best, round: jax.Array) -> tuple[Score, Best]:
        score = evaluate_policy(run.single, policy, run.keys.evaluation, config.eval_tasks, run.num_seeds)
        return score, improved(best, policy, score.return_mean, round)

    out = (shardings_of(state), replicated(run.mesh))
    step = run.compile("the train step", run.trainer.train_step, state, donate=(0,), out=out)
    return Programs(step, run.compile("the evaluation", judge, best.policy, best, jnp.int32(0)))


def improved(best: Best, policy: Arrays, score: jax.Array, round: jax.Array) -> Best:
    """`best`, or where the score is strictly higher the policy given; for each seed by itself."""
    better = score > best.score
    return Best(
        choose_better(better, policy, best.policy),
        jnp.where(better, score, best.score),
        jnp.where(better, round, best.round),
    )


def train_rounds(
    run: Run, current: RunState, programs: Programs, checkpoints: Checkpoints, loggers: list[Logger], stop: StopRequest
) -> None:
    """Trains until the steps are done or a signal comes; leaves a checkpoint of where it ended."""
    config = run.single.config.run
    saved = time.monotonic()
    run.reporter.start(config.steps, current.env_steps)
    try:
        if current.round == 0 and current.saved_round < 0:
            record(run, current, loggers, evaluate_now(run, current, programs))
        while current.env_steps < config.steps and not stop.told():
            record(run, current, loggers, one_round(run, current, programs))
            if largest(time.monotonic() - saved >= 60 * config.checkpoint_minutes):
                save_good(run, current, checkpoints)
                saved = time.monotonic()
        if current.saved_round != current.round:
            save_good(run, current, checkpoints)
    finally:
        run.reporter.stop()


def record(run: Run, current: RunState, loggers: list[Logger], metrics: Record) -> None:
    """Sends the metrics of a round to the loggers and the person."""
    complete = current.counts() | metrics
    for logger in loggers:
        logger.write(complete)
    run.reporter.update(complete)


def one_round(run: Run, current: RunState, programs: Programs) -> Record:
    """One round of training and, where it is due, an evaluation."""
    start = time.monotonic()
    current.state, metrics = programs.step(current.state)
    metrics = jax.device_get(metrics)
    check_losses(metrics, current.round)
    current.seconds += time.monotonic() - start
    done = current.env_steps >= run.single.config.run.steps
    evaluation = evaluate_now(run, current, programs) if done or evaluation_due(run, current.round) else {}
    return summarise("train", metrics) | evaluation


def evaluation_due(run: Run, round: int) -> bool:
    """Whether a multiple of `eval_every` meta-episodes was passed in this round."""
    every = run.single.config.run.eval_every
    return round * run.lanes // every > (round - 1) * run.lanes // every


def evaluate_now(run: Run, current: RunState, programs: Programs) -> Record:
    """Evaluates the current policy on the fixed tasks and keeps it if it is the best so far."""
    start = time.monotonic()
    policy = run.policy_of(current.state)
    score, current.best = programs.judge(policy, current.best, jnp.int32(current.round))
    metrics = summarise("eval", score_metrics(score))
    current.seconds += time.monotonic() - start
    return metrics


def check_losses(metrics: dict[str, Any], round: int) -> None:
    """Raises TrainingFault if a loss or the norm of a gradient is not finite; names the one that others follow from."""
    for name, value in sorted(metrics.items(), key=cause_first):
        last = name.rpartition("/")[2]
        if ("loss" in last or "norm" in last) and not np.all(np.isfinite(value)):
            raise TrainingFault(fault(f"{name} is {first_bad(value)}", round))


def cause_first(metric: tuple[str, Any]) -> tuple[bool, bool, bool]:
    """Orders metrics as faults spread: the model before the behaviour learned in it, the terms of a loss before their
    sum, gradients last."""
    group, _, name = metric[0].rpartition("/")
    return group not in ("world_model", "vae"), "loss" not in name, name == "loss"


def save_good(run: Run, current: RunState, checkpoints: Checkpoints) -> None:
    """Writes a checkpoint unless the policy is spoilt already, which the losses would show one round later."""
    for name, value in run.policy_of(current.state).items():
        if jnp.issubdtype(value.dtype, jnp.inexact) and not jnp.all(jnp.isfinite(value)):
            raise TrainingFault(fault(f"{name} is no longer finite", current.round))
    save(run, current, checkpoints)


def first_bad(value: Any) -> str:
    """The first number that is not finite and, among several seeds, whose it is."""
    values = np.asarray(value)
    bad = np.flatnonzero(~np.isfinite(values))[0]
    return f"{values.flat[bad]}" + (f" for seed {bad}" if values.ndim else "")


def fault(what: str, round: int) -> str:
    """The sentence for a quantity that is not finite."""
    return f"Training stopped in round {round} because {what}; the last good checkpoint was kept."
