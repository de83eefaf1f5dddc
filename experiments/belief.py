"""What an agent knows of its task: `python experiments/belief.py RUN [--out PREFIX]`.

For halfcircle, point-wind and escape-room. Plays many meta-episodes, trains a small probe to read the direction of the
goal or the door from the agent's memory, and draws what it reads in a task that the probe has not seen, step by step:
PREFIX.png and PREFIX.gif. Prints the returns by direction, which show where the agent does not search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from runtime import Parser, UsageError, configure_jax, one_sentence_errors, run_script, set_environment

if TYPE_CHECKING:
    import jax
    from matplotlib.axes import Axes

BINS = 32
"""Directions that the probe tells apart, equal parts of 0 to pi."""

SECTORS = 6
"""Equal parts of 0 to pi for which returns are printed."""

HELD_OUT = 64
UPDATES, BATCH, RATE = 3000, 1024, 1e-3
FRAME_EVERY, SECONDS_PER_FRAME = 3, 0.12


def direction_of_goal(params: Any) -> np.ndarray:
    """Of a goal (..., 2) on the half-circle, (...) rad."""
    return np.arctan2(params.goal[..., 1], params.goal[..., 0])


DIRECTIONS: dict[str, Callable[[Any], Any]] = {
    "halfcircle": direction_of_goal,
    "point-wind": direction_of_goal,
    "escape-room": lambda params: np.asarray(params.door),
}
"""The hidden direction in radians, from the parameters of an environment."""


class Played(NamedTuple):
    """What happened in K tasks over L steps. memory: (L, K, F), after the row at hand was seen. position: (L, K, 2) and
    reward: (L, K) of that row. sub_episode: (L, K), of the next step. direction: (K,) rad, hidden from the agent.
    returns: (N, K) by sub-episode, with the reward of the last row, which no memory sees."""

    memory: np.ndarray
    position: np.ndarray
    reward: np.ndarray
    sub_episode: np.ndarray
    direction: np.ndarray
    returns: np.ndarray


def main(words: list[str]) -> int:
    """Runs a command line; returns the exit code."""
    set_environment(words)
    configure_jax()
    from mamba_jax.checkpoint import CheckpointError

    with one_sentence_errors("belief.py", {ValueError: 2, OSError: 2, CheckpointError: 1}):
        options = parser().parse_args(words)
        if options.tasks <= HELD_OUT:
            raise UsageError(f"--tasks must be more than {HELD_OUT}, the number that the probe is tested on.")
        played, length = play_run(options.run, options.tasks)
        beliefs, nats = read_beliefs(played)
        task = choose_task(played)
        prefix = options.out or options.run / "belief"
        prefix.parent.mkdir(parents=True, exist_ok=True)
        picture, animation = (prefix.with_name(prefix.name + ending) for ending in (".png", ".gif"))
        draw_moments(played, beliefs, task, length, picture)
        animate(played, beliefs, task, animation)
    for line in returns_by_sector(played):
        print(line)
    by_sub_episode = ", ".join(f"{value:.2f}" for value in nats)
    print(f"Nats left about the direction at the end of each sub-episode, of {np.log(BINS):.2f}: {by_sub_episode}.")
    print(f"Wrote {picture} and {animation}.")
    return 0


def parser() -> Parser:
    """The command line."""
    found = Parser(prog="belief.py", description="Draw what an agent knows of its task.")
    found.add_argument("run", type=Path, metavar="RUN", help=f"the folder of a run on {' or '.join(DIRECTIONS)}")
    found.add_argument("--tasks", type=int, default=512, metavar="K", help="tasks to play (default: 512)")
    found.add_argument("--out", type=Path, metavar="PREFIX", help="files without their ending (default: RUN/belief)")
    return found


def play_run(path: Path, tasks: int) -> tuple[Played, int]:
    """Plays the best policy of a run, and the length of its sub-episodes. Raises UsageError for other environments."""
    import jax

    from mamba_jax.evaluate import play

    run, state = best_policy(path, tuple(DIRECTIONS))
    algo = run.single

    def record(carry, env_states, row):
        return memory_of(carry, tasks), row, env_states.params

    program = jax.jit(lambda state, key: play(algo, state, key, tasks, record))
    memory, rows, params = jax.device_get(program(state, run.keys.rollout))
    first_task = jax.tree.map(lambda x: x[0], params)
    return (
        Played(
            memory=memory[1:],  # the memory of a step has seen the row that the step before it led to
            position=rows.observation["state"][:-1],
            reward=rows.reward[:-1],
            sub_episode=rows.sub_episode[1:],
            direction=DIRECTIONS[algo.env.name](first_task),
            returns=np.add.reduceat(rows.reward, np.arange(0, algo.env.num_steps, algo.env.length)),
        ),
        algo.env.length,
    )


def best_policy(path: Path, environments: Sequence[str]) -> tuple[Any, Any]:
    """A run and the state of its best policy, of its first seed. Raises UsageError for other environments."""
    import jax
    from evaluate import load_run

    from mamba_jax.policy import from_arrays, policy_of_seed
    from mamba_jax.run_state import load_policy

    run = load_run(path)
    algo = run.single
    if algo.env.name not in environments:
        raise UsageError(f"{path} is a run on {algo.env.name}: choose one on {' or '.join(environments)}.")
    policy, _ = load_policy(run, "best")
    if run.num_seeds > 1:
        run.reporter.message(f"Of the {run.num_seeds} seeds of {path} the first is shown.")
        policy = policy_of_seed(policy, 0)
    return run, from_arrays(jax.eval_shape(algo.init, jax.random.key(0)), policy)


def memory_of(carry: Any, tasks: int) -> jax.Array:
    """What a policy carries from step to step, as numbers (tasks, F)."""
    import jax
    import jax.numpy as jnp

    parts = [x.reshape(tasks, -1) for x in jax.tree.leaves(carry) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.concatenate(parts, -1)


def returns_by_sector(played: Played) -> list[str]:
    """A line for every sector of directions: tasks in it, and their mean return by sub-episode."""
    sector = np.minimum((played.direction / np.pi * SECTORS).astype(int), SECTORS - 1)
    lines = []
    for index in range(SECTORS):
        inside = played.returns[:, sector == index]
        means = ", ".join(f"{value:.1f}" for value in inside.mean(1)) if inside.size else "-"
        low, high = 180 * index // SECTORS, 180 * (index + 1) // SECTORS
        lines.append(f"Direction {low} to {high} degrees, {inside.shape[1]} tasks: returns by sub-episode {means}.")
    return lines


def read_beliefs(played: Played) -> tuple[np.ndarray, list[float]]:
    """Probabilities (L, HELD_OUT, BINS) in the held-out tasks, the first ones, and by sub-episode the probe's mean
    negative log-likelihood of the truth at its end."""
    labels = np.minimum((played.direction / np.pi * BINS).astype(int), BINS - 1)
    probe = train_probe(played.memory[:, HELD_OUT:], labels[HELD_OUT:], BINS, UPDATES)
    log_probs = probe(played.memory[:, :HELD_OUT])
    truth = -np.take_along_axis(log_probs, labels[None, :HELD_OUT, None], -1)[..., 0]
    nats = []
    for index in range(played.sub_episode.max() + 1):
        steps = np.flatnonzero(played.sub_episode[:, 0] == index)
        nats.append(float(truth[steps[-1]].mean()))
    return np.exp(log_probs), nats


def train_probe(
    memory: np.ndarray, labels: np.ndarray, classes: int, number: int
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from memories (..., F) to log-probabilities (..., classes), trained for a number of updates on
    (L, K, F) with labels (K,)."""
    import jax
    import jax.numpy as jnp
    import optax

    from mamba_jax.nn.linear import MLP

    mean, deviation = memory.mean((0, 1)), memory.std((0, 1)) + 1e-3
    data, targets = jnp.asarray((memory - mean) / deviation), jnp.asarray(labels)
    probe, optimizer = MLP((128, 128), classes), optax.adam(RATE)
    params = probe.init(jax.random.key(0), data[0])

    def update(loop, key):
        params, state = loop
        step_key, task_key = jax.random.split(key)
        step = jax.random.randint(step_key, (BATCH,), 0, data.shape[0])
        task = jax.random.randint(task_key, (BATCH,), 0, data.shape[1])

        def loss(params):
            logits = probe.apply(params, data[step, task])
            return optax.softmax_cross_entropy_with_integer_labels(logits, targets[task]).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(1), number)
    (params, _), _ = jax.jit(lambda start: jax.lax.scan(update, start, keys))((params, optimizer.init(params)))
    read = jax.jit(lambda x: jax.nn.log_softmax(probe.apply(params, x)))
    return lambda x: np.asarray(read((x - mean) / deviation))


def choose_task(played: Played) -> int:
    """The held-out task whose search takes longest among those that it finds in the first sub-episode."""
    rewarded = (played.reward[:, :HELD_OUT] > 0) & (played.sub_episode[:, :HELD_OUT] == 0)
    found = np.where(rewarded.any(0), rewarded.argmax(0), -1)
    return int(found.argmax())


def draw_moments(played: Played, beliefs: np.ndarray, task: int, length: int, path: Path) -> None:
    """Draws the start, the search, the discovery and the ends of all sub-episodes, one panel each."""
    from mamba_jax.curves import grid

    rewarded = np.flatnonzero(played.reward[:, task] > 0)
    found = int(rewarded[0]) if len(rewarded) else length - 2
    last = len(played.reward) - 1
    ends = [min(end, last) for end in range(length - 2, last + 2, length)]
    moments = sorted({0, found // 2, found, *ends})
    figure, panels = grid(len(moments), columns=len(moments), size=(3, 2.8))
    for panel, step in zip(panels, moments, strict=True):
        draw_step(panel, played, beliefs, task, step)
    figure.savefig(path, dpi=120)


def draw_step(panel: Axes, played: Played, beliefs: np.ndarray, task: int, step: int) -> None:
    """Draws one step: the belief around the unit circle, the way of the current sub-episode, the truth as a star."""
    current = played.sub_episode[step, task]
    path = played.position[: step + 1, task][played.sub_episode[: step + 1, task] == current]
    edges = np.linspace(0, np.pi, BINS + 1)
    for low, high, share in zip(edges[:-1], edges[1:], beliefs[step, task], strict=True):
        angles = np.linspace(low, high, 4)
        ring = np.concatenate([np.exp(1j * angles) * 1.08, np.exp(1j * angles[::-1]) * (1.12 + 0.4 * share)])
        panel.fill(ring.real, ring.imag, color="C1", alpha=0.25 + 0.75 * share, linewidth=0)
    around = np.exp(1j * np.linspace(0, 2 * np.pi, 100))
    panel.plot(around.real, around.imag, color="lightgrey", linewidth=1)
    truth = np.exp(1j * played.direction[task])
    panel.plot(truth.real, truth.imag, "*", color="C2", markersize=10)
    panel.plot(*path.T, color="C0", linewidth=1)
    panel.plot(*path[-1], "o", color="C0", markersize=5)
    panel.set(xlim=(-1.7, 1.7), ylim=(-1.4, 1.7), aspect="equal", xticks=[], yticks=[])
    seen = (played.reward[: step + 1, task] > 0).any()
    panel.set_title(f"sub-episode {current + 1}, step {step + 1}{', reward met' if seen else ''}", fontsize="small")


def animate(played: Played, beliefs: np.ndarray, task: int, path: Path) -> None:
    """Writes the whole meta-episode as an animation."""
    import imageio.v3 as imageio
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    frames = []
    for step in range(0, len(played.reward), FRAME_EVERY):
        figure = Figure(figsize=(3, 2.8), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        draw_step(figure.subplots(), played, beliefs, task, step)
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    imageio.imwrite(path, np.stack(frames), duration=1000 * SECONDS_PER_FRAME, loop=0)


if __name__ == "__main__":
    run_script(main)
