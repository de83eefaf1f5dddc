"""Names -> algorithms."""

from collections.abc import Callable

from mamba_jax.algos.mamba import make_mamba
from mamba_jax.config import ConfigError, MambaConfig
from mamba_jax.types import Algorithm, MetaEnvironment

ALGORITHMS: dict[str, Callable[..., Algorithm]] = {"mamba": make_mamba}


def algorithms() -> tuple[str, ...]:
    """Names that `make` knows."""
    return tuple(ALGORITHMS)


def make(name: str, env: MetaEnvironment, config: MambaConfig) -> Algorithm:
    """The algorithm `name` on a meta-environment. Raises ConfigError for an unknown name or an impossible configuration."""
    if name not in ALGORITHMS:
        raise ConfigError(f"Unknown algorithm {name!r}: choose one of {', '.join(ALGORITHMS)}.")
    return ALGORITHMS[name](env, config, name=name)
