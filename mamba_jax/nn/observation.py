"""Encoder and decoder of observation dictionaries: vectors through symlog and an MLP, images through convolutions."""

import math
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from mamba_jax.nn.blocks import MLP, flatten_image, hidden_init, join, layer_norm, output_init
from mamba_jax.ops import twohot

Shapes = Mapping[str, tuple[int, ...]]


def is_image(shape: tuple[int, ...]) -> bool:
    """Entries of rank 3 (H, W, C) are images; all others are vectors or scalars."""
    return len(shape) == 3


def ordered_keys(shapes: Shapes) -> list[str]:
    """The environment's keys in alphabetical order, then `reward`, then `time`: the order of the encoder's input."""
    own = sorted(key for key in shapes if key not in ("reward", "time"))
    return own + [key for key in ("reward", "time") if key in shapes]


def as_vector(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """(..., *shape) -> (..., size) for a vector or scalar entry."""
    return x.reshape(*x.shape[: x.ndim - len(shape)], -1)


def join_vectors(observation: Mapping[str, jax.Array], shapes: Shapes, keys: Iterable[str]) -> jax.Array:
    """The entries `keys` of an observation, vectors or scalars, one after the other: (..., S)."""
    return jnp.concatenate([as_vector(observation[key], shapes[key]) for key in keys], -1)


def scale_image(image: jax.Array, dtype) -> jax.Array:
    """uint8 pixels -> [-0.5, 0.5]."""
    return image.astype(dtype) / 255 - 0.5


def conv_stages(height: int, width: int) -> int:
    """Convolutions of stride 2 that bring the longer side of an image to 4 or less, at least one; 4 for 64 x 64."""
    return max(1, math.ceil(math.log2(max(height, width) / 4)))


class ConvEncoder(nn.Module):
    """(..., H, W, C) in [-0.5, 0.5] -> (..., F): convolutions of stride 2, layer norm, SiLU.

    F is 4 4 8 depth for 64 x 64.
    """

    depth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(conv_stages(*x.shape[-3:-1])):
            x = nn.Conv(self.depth * 2**i, (4, 4), (2, 2), "SAME", use_bias=False, kernel_init=hidden_init)(x)
            x = nn.silu(layer_norm(f"norm_{i}")(x))
        return flatten_image(x)


class ConvDecoder(nn.Module):
    """(..., F) -> mean of an image (..., H, W, C) in [-0.5, 0.5]: transposed convolutions from 4x4 upwards.

    What they make beyond H and W, where these are not 4 times a power of 2, is cut off.
    """

    depth: int
    shape: tuple[int, int, int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        height, width, channels = self.shape
        stages = conv_stages(height, width)
        x = nn.Dense(16 * self.depth * 2 ** (stages - 1), kernel_init=hidden_init, name="linear")(x)
        x = x.reshape(*x.shape[:-1], 4, 4, -1)
        for i in reversed(range(stages - 1)):
            features = self.depth * 2**i
            x = nn.ConvTranspose(features, (4, 4), (2, 2), "SAME", use_bias=False, kernel_init=hidden_init)(x)
            x = nn.silu(layer_norm(f"norm_{stages - 2 - i}")(x))
        image = nn.ConvTranspose(channels, (4, 4), (2, 2), "SAME", kernel_init=output_init(1.0))(x)
        return image[..., :height, :width, :]


class Encoder(nn.Module):
    """Observation dictionary -> embedding (..., E), images first, then all vectors together.

    shapes: entry -> shape. layers, units: the MLP. depth: channels of the first convolution.
    """

    shapes: Shapes
    layers: int
    units: int
    depth: int

    @nn.compact
    def __call__(self, observation: Mapping[str, jax.Array]) -> jax.Array:
        keys = ordered_keys(self.shapes)
        images = [key for key in keys if is_image(self.shapes[key])]
        vectors = [
            key for key in keys if not is_image(self.shapes[key])
        ]  # make_world_model sees to it that there is one
        vector = join_vectors(observation, self.shapes, vectors)
        outputs = []
        if images:
            x = jnp.concatenate([scale_image(observation[key], vector.dtype) for key in images], -1)
            outputs.append(ConvEncoder(self.depth, name="cnn")(x))
        outputs.append(MLP(self.layers, self.units, name="mlp")(twohot.symlog(vector)))
        return jnp.concatenate(outputs, -1)


class Decoder(nn.Module):
    """Feature (..., F) -> prediction of every entry: symlog of vectors (..., size), means of images (..., H, W, C).

    Takes two inputs as `MLP` does.
    """

    shapes: Shapes
    layers: int
    units: int
    depth: int

    @nn.compact
    def __call__(self, *parts: jax.Array) -> dict[str, jax.Array]:
        hidden = MLP(self.layers, self.units, name="mlp")(*parts)
        predictions = {}
        for key in ordered_keys(self.shapes):
            shape = self.shapes[key]
            if is_image(shape):
                predictions[key] = ConvDecoder(self.depth, shape, name=f"cnn_{key}")(join(parts))
            else:
                size = math.prod(shape)
                predictions[key] = nn.Dense(size, kernel_init=output_init(1.0), name=f"out_{key}")(hidden)
        return predictions


def reconstruction_loss(prediction: jax.Array, target: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Squared error (...) of one entry, summed over its elements: in symlog space for vectors, in pixels for images."""
    if is_image(shape):
        return jnp.sum(jnp.square(prediction - scale_image(target, prediction.dtype)), (-3, -2, -1))
    return twohot.symlog_squared_error(prediction, as_vector(target, shape))
