"""What changes during a run, and how it is kept in checkpoints."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mamba_jax.checkpoint import CheckpointError, Checkpoints
from mamba_jax.log import Record
from mamba_jax.policy import Arrays, array_shapes, from_arrays, to_arrays
from mamba_jax.processes import to_everyone
from mamba_jax.run import Best, Run, shardings_of
from mamba_jax.run_folder import RunFolder


@dataclass
class RunState:
    """The training state and the best policy so far.

    seconds: of training and evaluation so far, compilation left out. saved_round: of the newest checkpoint, -1 if none.
    """

    state: Any
    best: Best
    seconds: float = 0.0
    saved_round: int = -1

    @property
    def round(self) -> int:
        """Rounds done."""
        return int(self.state.rounds)

    @property
    def env_steps(self) -> int:
        """True environment steps done, of the seed that made fewest."""
        return int(jnp.min(self.state.env_steps))

    def counts(self) -> Record:
        """The first entries of a record."""
        updates = int(jnp.min(self.state.updates))
        return {"round": self.round, "env_steps": self.env_steps, "updates": updates, "seconds": round(self.seconds, 3)}


def begin(run: Run) -> RunState:
    """The state at the start, replay prefilled."""
    start = run.compile("the start", run.trainer.init, run.keys.init, out=shardings_of(run.state_shapes()))
    state = start(run.keys.init)
    return RunState(state, run.no_policy(state))


def resume(run: Run, checkpoints: Checkpoints) -> RunState | None:
    """The state kept in the newest checkpoint, None where there is none; raises CheckpointError if it is damaged."""
    number = checkpoints.latest()
    if number is None:
        return None
    template = run.state_shapes()
    shapes = {"state": array_shapes(template)} | best_items(jax.eval_shape(run.no_policy, template))
    items, counts = checkpoints.restore(number, shapes)
    best = Best(items["best"], **items["best_score"])
    state = jax.device_put(from_arrays(template, items["state"]), shardings_of(template))
    return RunState(state, best, counts["seconds"], saved_round=number)


def save(run: Run, current: RunState, checkpoints: Checkpoints) -> None:
    """Writes a checkpoint: the whole state with its replay and, apart from it, the last and the best policy."""
    policies = {"last": run.policy_of(current.state)} | best_items(current.best)
    items = {"state": to_arrays(current.state)} | to_everyone(policies, run.mesh)
    checkpoints.save(current.round, items, current.counts())
    current.saved_round = current.round


def best_items(best: Best) -> dict[str, Arrays]:
    """The items of a checkpoint that hold the best policy."""
    return {"best": best.policy, "best_score": {"score": best.score, "round": best.round}}


def no_checkpoint(folder: RunFolder) -> CheckpointError:
    """What to say of a run without a checkpoint."""
    if folder.evaluation.exists():
        advice = "train it once more with the command in its config.json and another --logdir"
        return CheckpointError(f"{folder.path} is kept without its checkpoints: {advice}.")
    return CheckpointError(f"{folder.path} has no checkpoint yet: train it first.")


def load_policy(run: Run, which: str) -> tuple[Arrays, Any]:
    """The policy "best" or "last" of the newest checkpoint, and its round (of every seed, if there are several).

    Replay and optimisers are not read. Raises CheckpointError where there is no checkpoint or it is damaged.
    """
    checkpoints = Checkpoints(run.folder.checkpoints, read_only=True)
    number = checkpoints.latest()
    if number is None:
        raise no_checkpoint(run.folder)
    best = jax.eval_shape(run.no_policy, run.state_shapes())
    shapes = best_items(best) if which == "best" else {"last": best.policy}
    items, counts = checkpoints.restore(number, shapes)
    return items[which], np.asarray(items["best_score"]["round"]).tolist() if which == "best" else counts["round"]
