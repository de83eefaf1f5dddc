"""Running mean and variance, and the running discounted returns that scale rewards."""

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class RunningStats:
    """Statistics of all samples seen so far.

    mean, var: one array each of the shape of a sample. count: (), the number of samples; it starts at 1e-4 so that
    the first batch replaces the initial mean 0 and variance 1 almost entirely.
    """

    mean: jax.Array
    var: jax.Array
    count: jax.Array


@struct.dataclass
class ReturnStats:
    """Running discounted returns of parallel lanes and their statistics.

    carry: (lanes,), the discounted sum of rewards of each lane up to now. stats: scalars, over lanes and time.
    """

    carry: jax.Array
    stats: RunningStats


def init(shape: tuple[int, ...] = (), dtype: jnp.dtype = jnp.float32) -> RunningStats:
    """Statistics before any sample of `shape`: mean 0, variance 1, next to no weight."""
    return RunningStats(jnp.zeros(shape, dtype), jnp.ones(shape, dtype), jnp.asarray(1e-4, dtype))


def measure(samples: jax.Array) -> RunningStats:
    """Statistics of samples (n, *shape) alone; what does not vary in them but for rounding has variance 0."""
    mean, var = samples.mean(0), samples.var(0)
    return RunningStats(mean, jnp.where(var > 1e-8 * (1 + mean**2), var, 0), jnp.asarray(len(samples), samples.dtype))


def init_returns(lanes: int, dtype: jnp.dtype = jnp.float32) -> ReturnStats:
    """Return statistics of `lanes` lanes before any reward."""
    return ReturnStats(jnp.zeros(lanes, dtype), init((), dtype))


def update(stats: RunningStats, batch: jax.Array, ddof: int = 1) -> RunningStats:
    """Adds a batch, (..., *sample shape), by Chan's parallel formula.

    ddof=1 takes the variance of the batch with n - 1 (a single sample counts as variance 0), ddof=0 with n.
    """
    samples = batch.reshape(-1, *stats.mean.shape)
    number = samples.shape[0]
    batch_mean = samples.mean(0)
    batch_var = jnp.square(samples - batch_mean).sum(0) / max(number - ddof, 1)
    total = stats.count + number
    delta = batch_mean - stats.mean
    squares = stats.var * stats.count + batch_var * number + jnp.square(delta) * stats.count * number / total
    return RunningStats(stats.mean + delta * number / total, squares / total, total)


def scale(stats: RunningStats, x: jax.Array, eps: float = 1e-8) -> jax.Array:
    """x / sqrt(var + eps); entries that never varied (variance exactly 0) stay as they are."""
    return x / jnp.where(stats.var > 0, jnp.sqrt(stats.var + eps), 1.0)


def normalise(stats: RunningStats, x: jax.Array, eps: float = 1e-8) -> jax.Array:
    """(x - mean) / sqrt(var + eps), with the same exception as `scale`."""
    return scale(stats, x - stats.mean, eps)


def track_returns(
    returns: ReturnStats,
    rewards: jax.Array,
    ended: jax.Array,
    gamma: float,
    *,
    ddof: int = 0,
    zero_before: jax.Array | None = None,
) -> tuple[ReturnStats, jax.Array]:
    """Follows the discounted return of every lane through a rollout and adds it to the statistics at every step.

    rewards, ended: (T, lanes); where `ended`, the return starts again at 0 after it has been counted.
    zero_before: (T, lanes), where the return is set to 0 before it is counted, so that the statistics take in a zero
    instead of the final return (VariBAD's release does this at the end of a task).
    Returns the new state and the statistics' variance after every step, (T,).
    """
    if zero_before is None:
        zero_before = jnp.zeros_like(ended)

    def step(state: ReturnStats, row: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[ReturnStats, jax.Array]:
        reward, end, zero = row
        carry = jnp.where(zero, 0, state.carry * gamma + reward)
        stats = update(state.stats, carry, ddof)
        return ReturnStats(jnp.where(end, 0, carry), stats), stats.var

    return jax.lax.scan(step, returns, (rewards, ended, zero_before))


def scale_rewards(
    returns: ReturnStats,
    rewards: jax.Array,
    ended: jax.Array,
    gamma: float,
    *,
    clip: float,
    zero_before: jax.Array | None = None,
) -> tuple[ReturnStats, jax.Array]:
    """Divides rewards, (T, lanes), by the standard deviation of the discounted return up to each step, and clips.

    Nothing is subtracted, so the sign of a reward stays. Arguments as in `track_returns`.
    """
    returns, var = track_returns(returns, rewards, ended, gamma, zero_before=zero_before)
    return returns, jnp.clip(rewards / jnp.sqrt(var + 1e-8)[:, None], -clip, clip)
