"""What stays the same during a run: the algorithm, its seeds, its keys and its folder."""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mamba_jax.policy import Arrays, policy_names, take_policy
from mamba_jax.processes import to_each
from mamba_jax.progress import Reporter
from mamba_jax.run_folder import RunFolder
from mamba_jax.seeds import over_seeds
from mamba_jax.sharding import make_mesh, state_shardings
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
    policy_names: the part of a state that is a policy. reporter: shows what happens. mesh: the devices that the
    training state is spread over; policies are on the first one of each process, where they are evaluated.
    """

    single: Algorithm
    trainer: Algorithm
    num_seeds: int
    keys: RunKeys
    policy_names: tuple[str, ...]
    folder: RunFolder
    reporter: Reporter
    mesh: Mesh

    @property
    def lanes(self) -> int:
        """Meta-episodes that a round collects."""
        return self.single.steps_per_round // self.single.env.num_steps

    def state_shapes(self) -> Any:
        """Shapes, dtypes and shardings of the training state."""
        shapes = jax.eval_shape(self.trainer.init, self.keys.init)
        shardings = state_shardings(shapes, self.mesh, seeds=self.num_seeds > 1)
        return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, shardings)

    def policy_of(self, state: Any) -> Arrays:
        """The policy of a training state, on one device of each process."""
        return to_each(take_policy(self.policy_names, state), self.mesh)

    def no_policy(self, state: Any) -> Best:
        """A `Best` that anything improves on."""
        policy = {name: jnp.zeros(x.shape, x.dtype) for name, x in take_policy(self.policy_names, state).items()}
        shape = () if self.num_seeds == 1 else (self.num_seeds,)
        return Best(policy, jnp.full(shape, -jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32))

    def compile(
        self, what: str, function: Callable, *shapes: Any, donate: tuple[int, ...] = (), out: Any = None
    ) -> Callable:
        """Compiles a function for these shapes and says how long it took. out: where its results go, a tree of
        shardings on the mesh, for one that is spread over it."""
        start = time.monotonic()
        with contextlib.nullcontext() if out is None else jax.set_mesh(self.mesh):
            program = jax.jit(function, donate_argnums=donate, out_shardings=out).lower(*shapes).compile()
        self.reporter.message(f"Compiled {what} in {time.monotonic() - start:.1f} s.")
        return program


def make_run(
    single: Algorithm,
    folder: RunFolder,
    reporter: Reporter,
    *,
    seed: int,
    num_seeds: int = 1,
    devices: Sequence[jax.Device] | None = None,
) -> Run:
    """A run of one seed, or of several at once, on these devices or all: seeds go to devices of their own as far as
    they divide evenly, and the devices of a seed share its lanes and batches."""
    trainer = single if num_seeds == 1 else over_seeds(single, num_seeds)
    devices = devices or jax.devices()
    mesh = make_mesh(devices, math.gcd(num_seeds, len(devices)))
    return Run(single, trainer, num_seeds, run_keys(seed), policy_names(single), folder, reporter, mesh)


def shardings_of(shapes: Any) -> Any:
    """The shardings that shapes have."""
    return jax.tree.map(lambda x: x.sharding, shapes)


def run_keys(seed: int) -> RunKeys:
    """The keys of a run with this seed."""
    return RunKeys(*jax.random.split(jax.random.key(seed), len(RunKeys._fields)))
