"""How many updates a world model needs until it remembers: `python experiments/memory.py --rows halfcircle reacher-1`.

Trains MAMBA's world model by itself, on meta-episodes of a script that is shown where it is: it searches along a route
until reward comes, stays there and, in half of the lanes, leaves now and then for other places on the route and comes
back. So the data are those of an agent that has learned, and what is measured does not wait for exploration or for an
actor. Every 250 updates the prior goes on from posteriors in other such meta-episodes, as in foresight.py. A model that
remembers imagines reward where the script comes back to it, and less where it does not.

Writes config.json, metrics.jsonl and memory.png; rows that the folder holds already are not trained again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from exploration import open_folder
from foresight import AHEAD, Foresight, foresee
from runtime import Parser, UsageError, configure_jax, one_sentence_errors, run_script, set_environment

if TYPE_CHECKING:
    import jax

    from mamba_jax.replay import Rows
    from mamba_jax.types import MetaEnvironment

TRAINING, TEST, EVERY = 512, 128, 250
"""Meta-episodes to train on and to test in, and updates between tests."""

LEAVE, RETURN = 0.02, 0.04
"""Chances in a step that a lane leaves its goal, and that it goes back."""


class Script(NamedTuple):
    """What the script knows of an environment. route: (R, 2) places in the order of the search, a closed round. reach:
    distance at which a place counts as come to. position: state -> (2,). goal: params -> (2,). control: (state, place)
    -> action that leads there."""

    route: np.ndarray
    reach: float
    position: Callable[[Any], jax.Array]
    goal: Callable[[Any], jax.Array]
    control: Callable[[Any, jax.Array], jax.Array]


def main(words: list[str]) -> int:
    """Runs a command line; returns the exit code."""
    set_environment(words)
    configure_jax()
    with one_sentence_errors("memory.py", {ValueError: 2, OSError: 2}):
        options = parser().parse_args(words)
        if options.updates % EVERY:
            raise UsageError(f"--updates must be a multiple of {EVERY}, after which there is a test each time.")
        scripts = {row: make_script(row) for row in options.rows}
        open_folder(options.out, ["experiments/memory.py", *words], {"updates": options.updates})
        for row, script in scripts.items():
            study(row, script, options)
        draw(options.out)
    return 0


def parser() -> Parser:
    """The command line."""
    from options import at_least_one

    found = Parser(prog="memory.py", description="Train world models on scripted data and ask what they remember.")
    rows_help = "halfcircle, point-wind or reacher-1 (default: halfcircle reacher-1)"
    found.add_argument("--rows", nargs="+", default=["halfcircle", "reacher-1"], metavar="ROW", help=rows_help)
    found.add_argument("--updates", type=at_least_one, default=3000, metavar="U", help="of a row (default: 3000)")
    found.add_argument(
        "--out", type=Path, default=Path("results/memory"), metavar="DIR", help="default: results/memory"
    )
    return found


def make_script(row: str) -> Script:
    """The script of a row. Raises UsageError."""
    import jax
    import jax.numpy as jnp

    from envs.mjx import arm

    if row in ("halfcircle", "point-wind"):
        there = arc(9, 1.0, 0.0, np.pi)
        return Script(
            route=np.concatenate([there, there[-2:0:-1]]),
            reach=0.05,
            position=lambda state: state.position,
            goal=lambda params: params.goal,
            control=lambda state, place: jnp.clip((place - state.position) / 0.1, -1.0, 1.0),
        )
    if row != "reacher-1":
        raise UsageError(f"There is no script for {row}: choose halfcircle, point-wind or reacher-1.")

    def pull(state: Any, place: jax.Array) -> jax.Array:
        torque = jax.jacfwd(arm.finger)(state.qpos).T @ (place - arm.finger(state.qpos))
        return jnp.clip(60.0 * torque - 0.12 * state.qvel, -1.0, 1.0)

    rings = [arc(9, 0.15, 0.0, 16 * np.pi / 9), arc(4, 0.06, 0.0, 1.5 * np.pi)]
    return Script(np.concatenate(rings), 0.03, lambda state: arm.finger(state.qpos), lambda p: p.goals[0], pull)


def arc(number: int, radius: float, first: float, last: float) -> np.ndarray:
    """(number, 2) places on a circle around the origin, from one angle to another."""
    angle = np.linspace(first, last, number)
    return radius * np.stack([np.cos(angle), np.sin(angle)], -1)


def study(row: str, script: Script, options: Any) -> None:
    """Trains on a row and adds its records to the folder once it is through."""
    from mamba_jax.log import read_lines, read_metrics
    from mamba_jax.run_folder import write_atomically

    path = options.out / "metrics.jsonl"
    if any(record["row"] == row for record in read_metrics(path)):
        print(f"{row}: done", flush=True)
        return
    lines = []
    for record in train(row, script, options.updates):
        lines.append(json.dumps({"row": row} | record) + "\n")
        print(lines[-1], end="", flush=True)
    write_atomically(path, "".join(read_lines(path) + lines))


def train(row: str, script: Script, updates: int) -> Iterator[dict[str, Any]]:
    """A record every `EVERY` updates of the world model at size small, on whole meta-episodes."""
    import jax
    import jax.numpy as jnp
    from options import split_row

    import envs
    import mamba_jax as mj
    from mamba_jax.algos import mamba
    from mamba_jax.replay import Replay, sample

    name, subtasks = split_row(row)
    env = envs.make(name, subtasks=subtasks)
    agent = mamba.make_agent(env, mj.preset("mamba", env, size="small"))  # type: ignore[arg-type]
    rows = jax.jit(lambda key: play(env, script, key, TRAINING))(jax.random.key(0))
    replay = Replay(jax.tree.map(lambda x: x[:, None], rows), jnp.int32(1))
    other = jax.jit(lambda key: play(env, script, key, TEST))(jax.random.key(1))
    learner = mamba.init_learner(agent, jax.random.key(2), rows.observation)
    test = mamba.to_sequences(agent, learner, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), other))

    def body(learner, key):
        sample_key, model_key = jax.random.split(key)
        data = mamba.to_sequences(agent, learner, sample(replay, sample_key, agent.config.data.batch))
        learner, _, metrics = mamba.update_model(agent, learner, data, model_key, None)
        return learner, metrics["loss_reward"]

    step = jax.jit(lambda learner, key: jax.lax.scan(body, learner, jax.random.split(key, EVERY)))
    start = time.monotonic()
    for done in range(EVERY, updates + 1, EVERY):
        learner, loss = step(learner, jax.random.fold_in(jax.random.key(3), done))
        record = {"updates": done, "loss_reward": round(float(loss.mean()), 4)}
        yield record | remembered(foresee(agent, learner, test)) | {"seconds": round(time.monotonic() - start, 1)}


def play(env: MetaEnvironment, script: Script, key: jax.Array, lanes: int) -> Rows:
    """A meta-episode of the script in every lane, leaves (lanes, T, ...); its actions have noise of a deviation that is
    drawn for every lane, up to 0.6."""
    import jax
    import jax.numpy as jnp

    from mamba_jax.replay import Rows

    route = jnp.asarray(script.route, jnp.float32)
    reset_key, lane_key, step_key = jax.random.split(key, 3)
    states, now = env.reset_lanes(reset_key, lanes)
    first_key, noise_key, leave_key = jax.random.split(lane_key, 3)
    place = jax.random.randint(first_key, (lanes,), 0, len(route))
    noise = 0.6 * jax.random.uniform(noise_key, (lanes, 1))
    restless = jax.random.bernoulli(leave_key, 0.5, (lanes,))
    away = jnp.zeros(lanes, bool)

    def step(loop, key):
        states, now, action, place, found, away = loop
        env_key, noise_key, away_key = jax.random.split(key, 3)
        found = found | (now.observation["reward"] > 0)
        position, goal = jax.vmap(script.position)(states.env_state), jax.vmap(script.goal)(states.params)
        searching = ~found | away
        there = jnp.linalg.norm(position - route[place], axis=-1) < script.reach
        place = (place + (searching & there)) % len(route)
        drawn = jax.random.uniform(away_key, (lanes,))
        away = found & restless & jnp.where(away, drawn > RETURN, drawn < LEAVE)
        target = jnp.where((found & ~away)[:, None], goal, route[place])
        control = jax.vmap(script.control)(states.env_state, target)
        following = jnp.clip(control + noise * jax.random.normal(noise_key, control.shape), -1.0, 1.0)
        row = Rows(now.observation, action, now.is_first, now.terminated)
        states, now = env.step_lanes(env_key, states, following)
        return (states, now, following, place, found, away), row

    loop = (states, now, jnp.zeros((lanes, *env.action_space.shape)), place, away, away)
    rows = jax.lax.scan(step, loop, jax.random.split(step_key, env.num_steps))[1]
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), rows)


def remembered(found: Foresight) -> dict[str, float]:
    """Mean rewards `max(AHEAD)` steps ahead of starts without reward, where reward came: as it was and as imagined; and
    as imagined where none came. Apart for starts before and after reward was first met."""
    true, imagined = found.true[max(AHEAD) - 1], found.imagined[max(AHEAD) - 1]
    came, figures = true > 0, {}
    for kind, mask in (("new", ~found.met), ("known", found.met & (found.now <= 0))):
        figures[f"{kind}/came"] = mean(true[mask & came])
        figures[f"{kind}/imagined_where_came"] = mean(imagined[mask & came])
        figures[f"{kind}/imagined_elsewhere"] = mean(imagined[mask & ~came])
    return figures


def mean(values: np.ndarray) -> float:
    """The mean to four digits, not a number of nothing."""
    return round(float(values.mean()), 4) if values.size else float("nan")


def draw(folder: Path) -> None:
    """Draws memory.png: what is imagined of known goals, in units of what came, by updates."""
    from mamba_jax.curves import grid
    from mamba_jax.log import read_metrics

    records = read_metrics(folder / "metrics.jsonl")
    rows = list(dict.fromkeys(record["row"] for record in records))
    figure, panels = grid(len(rows), columns=len(rows), size=(5, 3.5))
    for panel, row in zip(panels, rows, strict=True):
        own = [record for record in records if record["row"] == row]
        updates, came = ([record[name] for record in own] for name in ("updates", "known/came"))
        for name, style in (("where_came", "-"), ("elsewhere", "--")):
            values = np.array([record[f"known/imagined_{name}"] for record in own]) / came
            panel.plot(updates, values, style, label=f"goal met before; {name.replace('_', ' reward ')}")
        panel.axhline(1, color="grey", linestyle=":", label="what came")
        panel.set_title(f"{row}: reward imagined {max(AHEAD)} steps ahead", fontsize="small")
        panel.set_xlabel("updates of the world model")
        panel.legend(fontsize="small")
    figure.savefig(folder / "memory.png", dpi=120)
    print(f"Wrote {folder / 'memory.png'}.")


if __name__ == "__main__":
    run_script(main)
