"""Meta-reinforcement learning with world models in JAX."""

from mamba_jax.algos.registry import algorithms, make
from mamba_jax.config import ConfigError
from mamba_jax.evaluate import evaluate
from mamba_jax.load import load
from mamba_jax.presets import preset
from mamba_jax.seeds import over_seeds
from mamba_jax.types import Algorithm, Score

__all__ = ["Algorithm", "ConfigError", "Score", "algorithms", "evaluate", "load", "make", "over_seeds", "preset"]
