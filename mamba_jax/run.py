"""What stays the same during a run: the algorithm, its seeds, its keys and its folder."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mamba_jax.policy import Arrays, policy_names, take_policy
from mamba_jax.progress import Reporter
from mamba_jax.run_folder import RunFolder
from mamba_jax.seeds import over_seeds
from mamba_jax.types import Algorithm


class RunKeys(NamedTuple):
    """Independent keys for the purposes of a run, all from its seed, so that nothing depends on when things happen."""

    init: jax.Array
    evaluation: jax.Array
    test: jax.Array
    rollout: jax.Array


class Best(NamedTuple):
    """The best policy so far. score, round: () or (seeds,), its mean return on the evaluation tasks and its round."""

    policy: Arrays
    score: jax.Array
    round: jax.Array


@dataclass(frozen=True)
class Run:
    """One training run of one seed, or of several at once.

    single: the algorithm for one seed. trainer: what is trained, `single` or `num_seeds` seeds of it.
    policy_names: the part of a state that is a policy. reporter: shows what happens.
    """

    single: Algorithm
    trainer: Algorithm
    num_seeds: int
    keys: RunKeys
    policy_names: tuple[str, ...]
    folder: RunFolder
    reporter: Reporter

    @property
    def lanes(self) -> int:
        """Meta-episodes that a round collects."""
        return self.single.steps_per_round // self.single.env.num_steps

    def state_shapes(self) -> Any:
        """Shapes and dtypes of the training state."""
        return jax.eval_shape(self.trainer.init, self.keys.init)

    def policy_of(self, state: Any) -> Arrays:
        """The policy of a training state."""
        return take_policy(self.policy_names, state)

    def no_policy(self, state: Any) -> Best:
        """A `Best` that anything improves on."""
        policy = jax.tree.map(jnp.zeros_like, self.policy_of(state))
        shape = () if self.num_seeds == 1 else (self.num_seeds,)
        return Best(policy, jnp.full(shape, -jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32))

    def compile(self, what: str, function: Callable, *shapes: Any, donate: tuple[int, ...] = ()) -> Callable:
        """Compiles a function for these shapes and says how long it took."""
        start = time.monotonic()
        program = jax.jit(function, donate_argnums=donate).lower(*shapes).compile()
        self.reporter.message(f"Compiled {what} in {time.monotonic() - start:.1f} s.")
        return program


def make_run(single: Algorithm, folder: RunFolder, reporter: Reporter, *, seed: int, num_seeds: int = 1) -> Run:
    """A run of one seed, or of several at once."""
    trainer = single if num_seeds == 1 else over_seeds(single, num_seeds)
    return Run(single, trainer, num_seeds, run_keys(seed), policy_names(single), folder, reporter)


def run_keys(seed: int) -> RunKeys:
    """The keys of a run with this seed."""
    return RunKeys(*jax.random.split(jax.random.key(seed), len(RunKeys._fields)))
