"""Speed on this machine, one JSON object a line: `python experiments/benchmark.py [--only env update ...]`.

Compile time is told apart; of three repeats the slowest counts. Figures of the authors' release are those measured with
one process on two CPU cores, so ratios hold on such a machine only.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from runtime import Parser, UsageError, one_sentence_errors, run_script, set_environment, usable_cpus

RELEASE_STEPS_PER_SECOND = {"halfcircle": 41_800, "rooms-3": 17_000, "escape-room": 9_900, "reacher-1": 9_200}
RELEASE_SECONDS_PER_UPDATE = {"halfcircle": 6.1, "rooms-3": 3.0}
ENVIRONMENTS = [
    ("halfcircle", None),
    ("point-wind", None),
    ("escape-room", None),
    ("rooms", 3),
    ("reacher", 1),
    ("reacher", 4),
]
PARTS = ("env", "update", "horizon", "train", "seeds", "algorithm", "compile")


def main(words: list[str]) -> int:
    """Runs the chosen parts and prints their figures; `--out` keeps them in a file too. Returns the exit code."""
    set_environment()
    from mamba_jax.run_folder import write_atomically

    with one_sentence_errors("benchmark.py", {ValueError: 2, OSError: 2}):
        options = parser().parse_args(words)
        lines = other_parts(options.out, options.only) if options.out else []
    parts: dict[str, Callable[[], Iterator[dict]]] = {
        "env": lambda: environments(options.lanes),
        "update": updates,
        "horizon": horizon,
        "train": train_steps,
        "seeds": several_seeds,
        "algorithm": algorithms,
        "compile": compile_times,
    }
    for part in options.only:
        for figures in parts[part]():
            lines.append(json.dumps({"part": part} | figures | hardware()))
            print(lines[-1], flush=True)
            if options.out:
                write_atomically(options.out, "\n".join(sorted(lines, key=place)) + "\n")
    return 0


def place(line: str) -> int:
    """Where a line of figures stands in a file: with its part."""
    return PARTS.index(json.loads(line)["part"])


def other_parts(out: Path, parts: Sequence[str]) -> list[str]:
    """The lines of a file of figures, made if need be, that belong to other parts than these. Raises UsageError."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.touch()
    lines = out.read_text().splitlines()
    try:
        return [line for line in lines if PARTS[place(line)] not in parts]
    except (ValueError, TypeError, KeyError):
        raise UsageError(f"{out} holds something else than figures of this script: choose another --out.") from None


def parser() -> Parser:
    """The command line."""
    from options import at_least_one

    found = Parser(prog="benchmark.py", description="Measure speed, part by part.")
    parts_help = f"parts to run: {', '.join(PARTS)} (default: all)"
    found.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=parts_help)
    lanes_help = "environments in parallel in the part env (default: 1024)"
    found.add_argument("--lanes", type=at_least_one, default=1024, metavar="L", help=lanes_help)
    out_help = "file that gets the same lines, in place of those of these parts"
    found.add_argument("--out", type=Path, metavar="FILE", help=out_help)
    return found


def hardware() -> dict[str, Any]:
    """What the figures were measured on."""
    import jax

    device = jax.devices()[0]
    return {"device": device.device_kind, "cpus": usable_cpus(), "machine": platform.machine(), "jax": jax.__version__}


def slowest(function: Callable[..., Any], *arguments: Any, repeats: int = 3) -> tuple[float, float]:
    """(seconds to compile, seconds of the slowest of `repeats` runs) of a jitted function; nothing is donated."""
    import jax

    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - start
    jax.block_until_ready(compiled(*arguments))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - start)
    return compile_seconds, max(seconds)


def label(name: str, subtasks: int | None) -> str:
    """ "rooms", 3 -> "rooms-3"."""
    return f"{name}-{subtasks}" if subtasks else name


def environments(lanes: int) -> Iterator[dict]:
    """Environment steps per second under a random policy, all lanes in one jitted scan over a meta-episode."""
    import jax

    import envs

    for name, subtasks in ENVIRONMENTS:
        env = envs.make(name, subtasks=subtasks)
        discrete = hasattr(env.action_space, "n")

        def play(key, env=env, discrete=discrete):
            reset_key, action_key, step_key = jax.random.split(key, 3)
            shape = (env.num_steps, lanes, *env.action_space.shape)
            draw = jax.random.randint if discrete else jax.random.uniform
            actions = draw(
                action_key, shape, minval=0 if discrete else -1, maxval=env.action_space.n if discrete else 1
            )

            def step(states, inputs):
                states, row = env.step_lanes(inputs[1], states, inputs[0])
                return states, row.reward.sum()

            states, _ = env.reset_lanes(reset_key, lanes)
            return jax.lax.scan(step, states, (actions, jax.random.split(step_key, env.num_steps)))[1].sum()

        compile_seconds, seconds = slowest(play, jax.random.key(0))
        rate = lanes * env.num_steps / seconds
        figures = {
            "env": label(name, subtasks),
            "lanes": lanes,
            "compile_s": compile_seconds,
            "steps_per_s": round(rate),
        }
        if (reference := RELEASE_STEPS_PER_SECOND.get(label(name, subtasks))) is not None:
            figures |= {"release_steps_per_s": reference, "ratio": round(rate / reference, 1)}
        yield rounded(figures)


def paper_agent(name: str, subtasks: int | None):
    """The agent of paper size and its initial state on an environment."""
    import jax

    import envs
    import mamba_jax as mj
    from mamba_jax.algos import mamba

    env = envs.make(name, subtasks=subtasks)
    config: Any = mj.preset("mamba", env)
    agent = mamba.make_agent(env, config)
    return agent, jax.jit(lambda key: mamba.init(agent, key))(jax.random.key(0))


def updates() -> Iterator[dict]:
    """Seconds of one gradient update of paper size at the full horizon: world model, actor and critic."""
    import jax

    from mamba_jax.algos import mamba

    for name, subtasks, length in (("halfcircle", None, None), ("rooms", 3, 100), ("escape-room", None, None)):
        agent, state = paper_agent(name, subtasks)
        rows = length or agent.env.num_steps

        def update(learner, replay, key, agent=agent, length=length):
            return mamba.update(agent, learner, replay, key, None if length is None else jax.numpy.int32(length))[0]

        compile_seconds, seconds = slowest(update, state.learner, state.replay, jax.random.key(1))
        figures = {"env": label(name, subtasks), "batch": agent.config.data.batch, "rows": rows}
        figures |= {"compile_s": compile_seconds, "update_s": seconds}
        if (reference := RELEASE_SECONDS_PER_UPDATE.get(label(name, subtasks))) is not None:
            figures |= {"release_s": reference, "ratio": round(reference / seconds, 2)}
        yield rounded(figures)


def horizon() -> Iterator[dict]:
    """World-model update of the reacher at horizons 50 and 900 of 900, one compilation for both."""
    import jax

    from mamba_jax.algos import mamba

    agent, state = paper_agent("reacher", 1)
    rows = mamba.sample(state.replay, jax.random.key(0), agent.config.data.batch)
    data = mamba.to_sequences(agent, state.learner, rows)

    def update(learner, data, key, horizon):
        return mamba.update_model(agent, learner, data, key, horizon)[0]

    compiled = jax.jit(update).lower(state.learner, data, jax.random.key(1), jax.numpy.int32(50)).compile()
    times = {}
    for length in (50, 900):
        arguments = (state.learner, data, jax.random.key(1), jax.numpy.int32(length))
        seconds(compiled, *arguments)  # the first call of a program is slower
        times[length] = max(seconds(compiled, *arguments) for _ in range(3))
    yield rounded({"env": "reacher-1", "at_50_s": times[50], "at_900_s": times[900], "share": times[50] / times[900]})


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Wall time of one call."""
    import jax

    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def train_steps() -> Iterator[dict]:
    """A whole round (collection and updates) of size small, and the memory of its state and program."""
    for name, subtasks in (("halfcircle", None), ("rooms", 3), ("reacher", 1)):
        yield whole_round(name, subtasks, "small", 1)


def several_seeds() -> Iterator[dict]:
    """A whole round of HalfCircle for 1 and for 8 seeds in one program, at the size that is meant for the machine."""
    import jax

    for count in (1, 8):
        yield whole_round("halfcircle", None, "small" if jax.default_backend() == "cpu" else "paper", count)


def whole_round(name: str, subtasks: int | None, size: str, num_seeds: int) -> dict[str, Any]:
    """Figures of a round of MAMBA that takes over its state's memory; rates and memory are those of all seeds."""
    import jax

    import envs
    import mamba_jax as mj
    from mamba_jax.seeds import over_seeds

    env = envs.make(name, subtasks=subtasks)
    single = mj.make("mamba", env, mj.preset("mamba", env, size=size))
    algo = single if num_seeds == 1 else over_seeds(single, num_seeds)
    state = jax.jit(algo.init)(jax.random.key(0))
    start = time.perf_counter()
    step = jax.jit(algo.train_step, donate_argnums=0).lower(state).compile()
    compile_seconds = time.perf_counter() - start
    memory: Any = step.memory_analysis()
    replay_bytes = sum(x.nbytes for x in jax.tree.leaves(state.replay))
    times = []
    for _ in range(4):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state))
        times.append(time.perf_counter() - start)
    slowest_round = max(times[1:])  # the first call of a program is slower
    return rounded({
        "env": label(name, subtasks), "size": size, "seeds": num_seeds, "compile_s": compile_seconds,
        "round_s": slowest_round, "updates_per_round": algo.updates_per_round,
        "updates_per_s": num_seeds * algo.updates_per_round / slowest_round,
        "steps_per_s": round(num_seeds * algo.steps_per_round / slowest_round), "replay_mb": replay_bytes / 1e6,
        "state_mb": memory.argument_size_in_bytes / 1e6, "donated_mb": memory.alias_size_in_bytes / 1e6,
        "temporary_mb": memory.temp_size_in_bytes / 1e6,
    })  # fmt: skip


def algorithms() -> Iterator[dict]:
    """Environment steps per second of whole training steps (collection and updates) of every algorithm, size small."""
    import mamba_jax as mj

    for name in mj.algorithms():
        yield rounded({"env": "halfcircle", "algo": name, "size": "small"} | training_round(name, "small"))


def training_round(name: str, size: str) -> dict[str, Any]:
    """Figures of the training step of an algorithm on HalfCircle."""
    import jax

    import envs
    import mamba_jax as mj

    env = envs.make("halfcircle")
    algo = mj.make(name, env, mj.preset(name, env, size=size))
    compile_seconds, round_seconds = slowest(algo.train_step, jax.jit(algo.init)(jax.random.key(0)))
    return {
        "compile_s": compile_seconds,
        "round_s": round_seconds,
        "steps_per_s": round(algo.steps_per_round / round_seconds),
        "updates_per_round": algo.updates_per_round,
    }


def compile_times() -> Iterator[dict]:
    """Compile time of a whole paper-size train step in a fresh process, without and with the persistent cache."""
    import subprocess
    import tempfile

    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from runtime import *; set_environment(); configure_jax()\n"
        "import time, jax, envs, mamba_jax as mj; env = envs.make('halfcircle')\n"
        "algo = mj.make('mamba', env, mj.preset('mamba', env)); state = jax.eval_shape(algo.init, jax.random.key(0))\n"
        "start = time.perf_counter(); jax.jit(algo.train_step, donate_argnums=0).lower(state).compile()\n"
        "print(time.perf_counter() - start)"
    )
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"XDG_CACHE_HOME": cache}
        times = [
            float(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout)
            for _ in range(2)
        ]
    yield rounded({"env": "halfcircle", "size": "paper", "first_start_s": times[0], "second_start_s": times[1]})


def rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """Floats to four digits."""
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in figures.items()}


if __name__ == "__main__":
    run_script(main)
