"""The golden tensors as parameters of the Flax modules; sizes and numbers of layers are read off them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mamba_jax.bonus import Distillation, PriorNetwork
from mamba_jax.nn.belief import CellRewardDecoder, Encoder, RewardDecoder, StateDecoder
from mamba_jax.nn.linear import MLP
from mamba_jax.nn.policy import ActionSpec
from mamba_jax.nn.ppo_policy import ActorCritic

RENAMED = {
    "gru": ("gru",),
    "fc_mu": ("mean",),
    "fc_logvar": ("logvar",),
    "critic_linear": ("value",),
    "dist.fc_mean": ("mean",),
    "dist.linear": ("logits",),
}
LISTS = {
    "fc_before_gru": "before_",
    "fc_after_gru": "after_",
    "actor_layers": "actor_",
    "critic_layers": "critic_",
    "embedders": "embed_",
}
GRU = {
    "weight_ih_l0": "input_kernel",
    "weight_hh_l0": "hidden_kernel",
    "bias_ih_l0": "input_bias",
    "bias_hh_l0": "hidden_bias",
}


def tensors(golden: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The tensors of one network by their names, e.g. of `param/encoder`."""
    return {key[len(prefix) + 1 :]: value for key, value in golden.items() if key.startswith(prefix + "/")}


def count(net: dict[str, np.ndarray], name: str) -> int:
    """Number of layers in a list of layers."""
    return len({key.split(".")[1] for key in net if key.startswith(name + ".")})


def widths(net: dict[str, np.ndarray], name: str) -> tuple[int, ...]:
    """Output widths of a list of layers."""
    return tuple(net[f"{name}.{index}.weight"].shape[0] for index in range(count(net, name)))


def flax_path(name: str, kind: str) -> tuple[str, ...]:
    """Path of a tensor's layer in the Flax parameters; `kind`: "trunk", "cells" or "" for other networks."""
    layer = name.rpartition(".")[0]
    if layer in RENAMED:
        return RENAMED[layer]
    head, _, index = layer.partition(".")
    if head in LISTS:
        return (LISTS[head] + index,)
    if head == "fc_layers":
        if kind == "trunk":
            return ("trunk", "joint") if index == "0" else ("trunk", "mlp", f"hidden_{int(index) - 1}")
        return ("mlp", f"hidden_{index}") if kind == "cells" else (f"hidden_{index}",)
    if head == "fc_out":
        return {"trunk": ("trunk", "mlp", "out"), "cells": ("mlp", "out")}.get(kind, ("out",))
    return (head,)


def to_flax(net: dict[str, np.ndarray], kind: str = "") -> dict:
    """Nested Flax parameters of a network's tensors."""
    params: dict = {}
    only_output = kind == "trunk" and not count(net, "fc_layers")
    for name, value in net.items():
        leaf = name.rpartition(".")[2]
        if name == "dist.logstd":
            params["log_std"] = jnp.asarray(value)
            continue
        path = ("trunk", "joint") if only_output and name.startswith("fc_out") else flax_path(name, kind)
        node = params
        for part in path:
            node = node.setdefault(part, {})
        node[GRU.get(leaf, {"weight": "kernel", "bias": "bias"}.get(leaf))] = jnp.asarray(value.T)
    return {"params": params}


def embedding(net: dict[str, np.ndarray], name: str) -> int:
    """Width of an embedding, 0 without one."""
    bias = net.get(f"{name}.fc.bias")
    return 0 if bias is None else len(bias)


def encoder(net: dict[str, np.ndarray]) -> Encoder:
    return Encoder(
        len(net["fc_mu.bias"]),
        net["gru.weight_hh_l0"].shape[1],
        embedding(net, "action_encoder") or None,
        embedding(net, "state_encoder"),
        embedding(net, "reward_encoder"),
        widths(net, "fc_before_gru"),
        widths(net, "fc_after_gru"),
    )


def reward_decoder(net: dict[str, np.ndarray], latent: int, kind: str = "bernoulli"):
    """Reward decoder and its parameters; one output per cell where there are no embeddings."""
    layers = widths(net, "fc_layers")
    if "state_encoder.fc.bias" not in net:
        return CellRewardDecoder(layers, len(net["fc_out.bias"]), kind), to_flax(net, "cells")
    state, action = embedding(net, "state_encoder"), embedding(net, "action_encoder")
    first = net["fc_layers.0.weight" if layers else "fc_out.weight"]
    use_prev = first.shape[1] - latent - action > state
    return RewardDecoder(layers, state, action, use_prev, action > 0), to_flax(net, "trunk")


def state_decoder(net: dict[str, np.ndarray]):
    """State decoder and its parameters."""
    module = StateDecoder(widths(net, "fc_layers"), embedding(net, "state_encoder"), embedding(net, "action_encoder"))
    return module, to_flax(net, "trunk")


def plain_mlp(net: dict[str, np.ndarray]) -> MLP:
    return MLP(widths(net, "fc_layers"), len(net["fc_out.bias"]))


def policy(net: dict[str, np.ndarray], squash: str = "none") -> ActorCritic:
    discrete = "dist.linear.bias" in net
    size = len(net["dist.linear.bias" if discrete else "dist.logstd"])
    return ActorCritic(
        ActionSpec(size, discrete),
        widths(net, "actor_layers"),
        embedding(net, "state_encoder") or None,
        embedding(net, "latent_encoder") or None,
        squash=squash,
    )


def distillation(prior: dict[str, np.ndarray], predictor: dict[str, np.ndarray]) -> tuple[Distillation, dict, dict]:
    """The two networks and their parameters."""
    first = widths(prior, "embedders")[0]
    networks = Distillation(
        PriorNetwork(first, widths(prior, "fc_layers"), len(prior["fc_out.bias"])), plain_mlp(predictor)
    )
    params = to_flax({name: value for name, value in prior.items() if name.startswith("embedders")})
    params["params"]["mlp"] = to_flax({k: v for k, v in prior.items() if not k.startswith("embedders")})["params"]
    return networks, params, to_flax(predictor)


def close(actual, expected, tolerance: float = 1e-8) -> None:
    """Compares two trees of arrays leaf by leaf, to `tolerance` absolute or relative, and their structures."""

    def compare(path, x, y):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=jax.tree_util.keystr(path))

    jax.tree_util.tree_map_with_path(compare, actual, expected)


def recording(steps: int) -> optax.GradientTransformation:
    """Leaves gradients alone and keeps them: its state is (count, gradients of every step along a leading axis)."""

    def init(params):
        return jnp.zeros((), int), jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype), params)

    def update(updates, state, params=None):
        count, history = state
        return updates, (count + 1, jax.tree.map(lambda h, g: h.at[count].set(g), history, updates))

    return optax.GradientTransformation(init, update)


def close_grads(actual, expected) -> None:
    close(actual, expected, 1e-5)
