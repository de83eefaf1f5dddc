"""Names -> algorithms."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from mamba_jax.algos.hyperx import make_hyperx
from mamba_jax.algos.mamba import make_mamba
from mamba_jax.algos.rl2 import make_rl2
from mamba_jax.algos.varibad import make_varibad
from mamba_jax.config import ConfigError, require
from mamba_jax.types import Algorithm, MetaEnvironment

ALGORITHMS: dict[str, Callable[..., Algorithm]] = {
    "mamba": make_mamba,
    "dreamer-vanilla": make_mamba,
    "dreamer-tune": make_mamba,
    "rl2": make_rl2,
    "varibad": make_varibad,
    "hyperx": make_hyperx,
}


def algorithms() -> tuple[str, ...]:
    """Names that `make` knows."""
    return tuple(ALGORITHMS)


def make(name: str, env: MetaEnvironment, config: Any) -> Algorithm:
    """The algorithm `name` on a meta-environment, configured as `preset` does.

    Raises ConfigError for an unknown name or an impossible configuration, and where JAX makes 64-bit arrays by default.
    """
    if name not in ALGORITHMS:
        raise ConfigError(f"Unknown algorithm {name!r}: choose one of {', '.join(ALGORITHMS)}.")
    require(jnp.result_type(float) == jnp.float32, "Algorithms train in 32 bits: turn jax_enable_x64 off.")
    return ALGORITHMS[name](env, config, name=name)
