"""What a world model expects of reward: `python experiments/foresight.py RUN`, for mamba and the Dreamer variants.

Takes meta-episodes from the replay in the newest checkpoint and lets the prior go on from their posteriors under the
actions that were taken. Compares the reward that came with the imagined one, some steps ahead, apart for what is known
at the start: no reward met yet, reward met before but not now, reward now. An agent can search only if its model
expects to find, and come back only if its model remembers.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from runtime import Parser, UsageError, configure_jax, one_sentence_errors, run_script, set_environment

if TYPE_CHECKING:
    import jax

    from mamba_jax.algos.mamba import Agent, Learner
    from mamba_jax.world_model import Sequences

AHEAD = (1, 2, 4, 8, 16)
"""Steps ahead that are shown."""

SEQUENCES = 128
"""Meta-episodes that are drawn from the replay."""

EVERY = 10
"""Rows between the starts of imagination in a meta-episode."""


class Foresight(NamedTuple):
    """Rewards at S starts, which are rows of meta-episodes. now: (S,) at the start. met: (S,) whether any was positive
    until then. true, imagined: (H, S) after each of the steps that follow; imagined is the mean of the reward head."""

    now: np.ndarray
    met: np.ndarray
    true: np.ndarray
    imagined: np.ndarray


def main(words: list[str]) -> int:
    """Runs a command line; returns the exit code."""
    set_environment(words)
    configure_jax()
    from mamba_jax.checkpoint import CheckpointError

    with one_sentence_errors("foresight.py", {ValueError: 2, OSError: 2, CheckpointError: 1}):
        path = parser().parse_args(words).run
        for line in table(foresee(*load_replay(path))):
            print(line)
    return 0


def parser() -> Parser:
    """The command line."""
    found = Parser(prog="foresight.py", description="Compare the rewards that a world model imagines with real ones.")
    found.add_argument("run", type=Path, metavar="RUN", help="the folder of a run of mamba or a Dreamer variant")
    return found


def load_replay(path: Path) -> tuple[Agent, Learner, Sequences]:
    """The agent of a run with its parameters, and meta-episodes (T, B, ...) from its replay. Raises ValueError or
    CheckpointError."""
    import jax
    from evaluate import load_run

    from mamba_jax import presets
    from mamba_jax.algos import mamba
    from mamba_jax.checkpoint import Checkpoints
    from mamba_jax.replay import sample
    from mamba_jax.run_state import no_checkpoint, resume

    run = load_run(path)
    if run.single.name not in presets.DREAMERS:
        choice = ", ".join(presets.DREAMERS)
        raise UsageError(f"{path} is a run of {run.single.name}, which has no world model: choose {choice}.")
    if run.num_seeds > 1:
        raise UsageError(f"{path} has {run.num_seeds} seeds in one: choose a run of one seed.")
    current = resume(run, Checkpoints(run.folder.checkpoints, read_only=True))
    if current is None:
        raise no_checkpoint(run.folder)
    agent = mamba.make_agent(run.single.env, run.single.config)
    rows = sample(current.state.replay, jax.random.key(0), SEQUENCES)
    return agent, current.state.learner, mamba.to_sequences(agent, current.state.learner, rows)


def foresee(agent: Agent, learner: Learner, data: Sequences) -> Foresight:
    """What the world model imagines from every `EVERY`-th row, where enough rows follow it."""
    import jax

    total = len(data.is_first)
    starts = np.arange(0, total - max(AHEAD), EVERY)
    if not len(starts):
        raise UsageError(f"Meta-episodes of {total} steps are too short: they must have more than {max(AHEAD)}.")
    imagined = jax.device_get(jax.jit(partial(imagine, agent))(learner.model, data, starts))
    reward = np.asarray(data.observation["reward"])
    true = np.stack([reward[starts + ahead] for ahead in range(1, max(AHEAD) + 1)])
    met = np.cumsum(reward > 0, 0)[starts] > 0
    return Foresight(reward[starts].ravel(), met.ravel(), true.reshape(len(true), -1), imagined)


def imagine(agent: Agent, params: dict[str, Any], data: Sequences, starts: jax.Array) -> jax.Array:
    """Rewards (H, starts x B) that the prior leads to under the actions of the sequences."""
    import jax
    import jax.numpy as jnp

    from mamba_jax import world_model as wm
    from mamba_jax.ops import twohot

    model = agent.model
    key, filter_key = jax.random.split(jax.random.key(0))
    latent = wm.observe(model, params, data, filter_key).latent
    first = jax.tree.map(lambda x: x[starts].reshape(-1, x.shape[-1]), latent)

    def step(latent: wm.Latent, ahead: jax.Array) -> tuple[wm.Latent, jax.Array]:
        action = data.action[starts + ahead].reshape(-1, data.action.shape[-1])
        shape = (len(action), model.config.stoch, model.config.classes)
        noise = jax.random.gumbel(jax.random.fold_in(key, ahead), shape)
        latent = wm.imagine_step(model, params, latent, action, noise)
        return latent, twohot.two_hot_mean(model.reward.apply(params["reward"], latent.features))

    return jax.lax.scan(step, first, jnp.arange(1, max(AHEAD) + 1))[1]


def table(found: Foresight) -> list[str]:
    """A Markdown table: mean rewards that came and that were imagined, over all starts of a kind and over those after
    which a positive reward came; "-" where there are none."""
    rewarded = found.now > 0
    kinds = {
        "no reward met yet": ~found.met,
        "met before, not now": found.met & ~rewarded,
        "reward now": rewarded,
    }
    lines = [
        "| known at the start | starts | steps ahead | reward | imagined | where reward came | imagined there |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, mask in kinds.items():
        for ahead in AHEAD:
            true, imagined = found.true[ahead - 1][mask], found.imagined[ahead - 1][mask]
            came = true > 0
            means = (true, imagined, true[came], imagined[came])
            cells = [f"{values.mean():.3f}" if values.size else "-" for values in means]
            lines.append(f"| {kind} | {mask.sum()} | {ahead} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    run_script(main)
