"""The end of a run: the test on fresh tasks, the learning curve and the animation."""

import json
from typing import Any, cast

import imageio.v3 as imageio
import jax
import numpy as np

from mamba_jax.curves import draw, read_curve
from mamba_jax.evaluate import rollout
from mamba_jax.policy import Arrays, evaluate_policy, from_arrays, policy_of_seed
from mamba_jax.processes import leads
from mamba_jax.run import Run
from mamba_jax.run_folder import write_atomically
from mamba_jax.run_state import RunState
from mamba_jax.signals import StopRequest
from mamba_jax.types import Score

MAX_FRAMES = 150
SECONDS_PER_FRAME = 0.08


def final_test(run: Run, current: RunState, stop: StopRequest) -> bool:
    """Plays the last and the best policy in fresh tasks; writes the curve, the animation and, at the end, eval.json.

    Leaves without eval.json, and returns False, when a signal comes, so that the next start does it again.
    """
    best, last = current.best, run.policy_of(current.state)
    test = compile_test(run, last, run.single.config.run.test_tasks)
    score = test(best.policy)
    results = {
        "best": {"round": as_numbers(best.round), "eval_return_mean": as_numbers(best.score)} | summary(score),
        "last": {"round": current.round} | summary(test(last)),
    }
    counts = current.counts()
    if stop.told():
        return False
    if leads():
        write_curve(run)
        write_animation(run, best.policy, score)
        names = ("return_mean", "return_std", "return_per_sub_episode", "tasks")
        overall = {name: results["best"][name] for name in names}
        write_atomically(run.folder.evaluation, json.dumps(overall | results | counts, indent=2))
        run.reporter.message(f"Finished: {outcome(overall)}. Everything is in {run.folder.path}.")
    return True


def compile_test(run: Run, policy: Arrays, num_tasks: int, *, fresh: bool = True):
    """The program policy -> Score on `num_tasks` fresh tasks, or training tasks, the same for every policy of a run."""

    def test(policy: Arrays) -> Score:
        return evaluate_policy(run.single, policy, run.keys.test, num_tasks, run.num_seeds, fresh=fresh)

    kind = "fresh" if fresh else "training"
    return run.compile(f"the test on {num_tasks:,} {kind} tasks", test, jax.eval_shape(lambda: policy))


def summary(score: Score) -> dict[str, Any]:
    """A Score as plain numbers; that of several seeds as means over them, with their deviation and one entry each."""
    if np.ndim(score.return_mean) == 0:
        return {
            "return_mean": float(score.return_mean),
            "return_std": float(score.return_std),
            "return_per_sub_episode": np.asarray(score.return_per_sub_episode).tolist(),
            "tasks": score.tasks,
        }
    seeds = [summary(jax.tree.map(lambda x, i=i: x[i], score)) for i in range(len(score.return_mean))]
    means = [seed["return_mean"] for seed in seeds]
    return {
        "return_mean": float(np.mean(means)),
        "return_std": float(np.mean([seed["return_std"] for seed in seeds])),
        "return_per_sub_episode": np.mean([seed["return_per_sub_episode"] for seed in seeds], 0).tolist(),
        "tasks": score.tasks,
        "return_std_over_seeds": float(np.std(means)),
        "seeds": seeds,
    }


def as_numbers(values: jax.Array) -> Any:
    """An array as a number or a list of numbers."""
    return np.asarray(values).tolist()


def outcome(result: dict[str, Any]) -> str:
    """A result in words."""
    parts = ", ".join(f"{value:.1f}" for value in result["return_per_sub_episode"])
    return f"return {result['return_mean']:.1f} over {result['tasks']:,} fresh tasks (by sub-episode {parts})"


def write_curve(run: Run) -> None:
    """Writes learning_curve.png; where the metrics were lost it says so and goes on."""
    try:
        draw([read_curve(run.folder)], run.folder.curve)
    except ValueError as error:
        run.reporter.message(f"No {run.folder.curve.name}: {error}")


def write_animation(run: Run, policy: Arrays, score: Score) -> None:
    """Writes rollout.gif: the policy, of several seeds the one that scored best, in a fresh task.

    Where nothing can be drawn it says so and goes on.
    """
    if run.num_seeds > 1:
        policy = policy_of_seed(policy, int(score.return_mean.argmax()))
    try:
        frames = render_rollout(run, policy)
        imageio.imwrite(run.folder.animation, frames, duration=1000 * SECONDS_PER_FRAME, loop=0)
    except Exception as error:  # a machine without OpenGL must not lose its results to a picture
        run.reporter.message(f"No {run.folder.animation.name}: rendering failed ({error}).")


def render_rollout(run: Run, policy: Arrays) -> np.ndarray:
    """Frames of a meta-episode of one seed's policy, (frames, H, W, 3) uint8; needs `render(state)` of `env`."""
    algo, env = run.single, cast(Any, run.single.env)
    template = jax.eval_shape(algo.init, jax.random.key(0))

    def play(policy: Arrays) -> Any:
        return rollout(algo, from_arrays(template, policy), run.keys.rollout)

    program = run.compile("the animated meta-episode", play, jax.eval_shape(lambda: policy))
    states, rows = jax.device_get(program(policy))
    length = int(np.argmax(rows.is_last)) + 1
    shown = range(0, length, -(-length // MAX_FRAMES))
    return np.stack([env.render(jax.tree.map(lambda x, t=t: x[t], states)) for t in shown])
