"""A time scan over Flax modules whose backward pass leaves weight gradients to one product at the end."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from mamba_jax.nn.blocks import SplitDense

Step = Callable[[dict, Any, Any, Any], tuple[Any, Any]]
"""(variables, constants, carry, x) -> (carry, y), applying modules to `variables`."""


class Layer(NamedTuple):
    """One call of a linear layer within a step. kernel: where in the variables its kernel is. start: first row of the
    kernel that is used. shape, dtype: of its output."""

    kernel: tuple[str, ...]
    start: int
    shape: tuple[int, ...]
    dtype: Any


def deferred_scan(
    step: Step, variables: dict, constants: Any, carry: Any, xs: Any, *, unroll: int = 1
) -> tuple[Any, Any]:
    """`jax.lax.scan` of `step(variables, constants, carry, x)`, with the same gradients at less cost.

    Plain reverse mode multiplies and adds a full-size weight gradient at every step, which costs more than the rest of
    the backward pass where the batch is small. Here the reverse scan carries the gradients of the carry and of vectors
    (biases, normalisation), and keeps those of the linear layers' outputs; kernels get theirs from one product over
    time and batch. Activations are computed again in the reverse scan, not stored.

    Linear layers are `nn.Dense`, `SplitDense` and what is built on it. unroll: as in `jax.lax.scan`.
    `step` must depend on traced values through its arguments alone.
    """
    layers = linear_layers(step, variables, constants, carry, jax.tree.map(lambda x: x[0], xs))
    time = jax.tree.leaves(xs)[0].shape[0]
    rows = {layer.kernel: traverse_util.flatten_dict(variables)[layer.kernel].shape[0] for layer in layers}

    @jax.custom_vjp
    def run(variables, constants, carry, xs):
        return jax.lax.scan(lambda carry, x: step(variables, constants, carry, x), carry, xs, unroll=unroll)

    def forward(variables, constants, carry, xs):
        leaves = traverse_util.flatten_dict(variables)
        kernels = {path: leaves.pop(path) for path in rows}

        def scan(leaves, constants, carry, xs, taps):
            variables = traverse_util.unflatten_dict(leaves | kernels)

            @jax.checkpoint
            def body(carry, inputs):
                x, taps = inputs
                (carry, y), seen = with_taps(step, taps, variables, constants, carry, x)
                return carry, (y, seen)

            last, (ys, seen) = jax.lax.scan(body, carry, (xs, taps), unroll=unroll)
            return (last, ys), seen

        taps = [jnp.zeros((time, *layer.shape), layer.dtype) for layer in layers]
        result, pull, seen = jax.vjp(scan, leaves, constants, carry, xs, taps, has_aux=True)
        return result, (pull, seen)

    def backward(residuals, cotangents):
        pull, seen = residuals
        grads, *others, d_taps = pull(cotangents)
        for layer, x, d_out in zip(layers, seen, d_taps, strict=True):
            grad = jnp.tensordot(x, d_out, [list(range(x.ndim - 1))] * 2)  # reshaped, they would leave their devices
            after = rows[layer.kernel] - layer.start - len(grad)
            grads[layer.kernel] = grads.get(layer.kernel, 0.0) + jnp.pad(grad, ((layer.start, after), (0, 0)))
        return traverse_util.unflatten_dict(grads), *others

    run.defvjp(forward, backward)
    return run(variables, constants, carry, xs)


def is_linear(context: nn.module.InterceptorContext) -> bool:
    """Whether an intercepted call multiplies by a kernel."""
    methods = {nn.Dense: ("__call__",), SplitDense: ("add_first", "project")}
    return any(isinstance(context.module, kind) and context.method_name in names for kind, names in methods.items())


def linear_layers(step: Step, *arguments: Any) -> list[Layer]:
    """The calls of linear layers in a step, in their order."""
    found: list[Layer] = []

    def note(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if is_linear(context):
            start = context.module.first if context.method_name == "project" else 0
            found.append(Layer(("params", *context.module.path, "kernel"), start, out.shape, out.dtype))
        return out

    with nn.intercept_methods(note):
        jax.eval_shape(lambda *x: step(*x), *arguments)  # a new function: a cached result would call no layers
    return found


def with_taps(step: Step, taps: list[jax.Array], *arguments: Any) -> tuple[tuple[Any, Any], list[jax.Array]]:
    """The step with taps added to the outputs of its linear layers: their gradients are those of the outputs.

    Returns the layers' inputs too.
    """
    seen: list[jax.Array] = []
    remaining = iter(taps)

    def add(call, args, kwargs, context):
        if not is_linear(context):
            return call(*args, **kwargs)
        seen.append(args[0])
        return call(*args, **kwargs) + next(remaining)

    with nn.intercept_methods(add):
        return step(*arguments), seen
