"""Encoder, decoders and evidence lower bound against the releases of VariBAD and HyperX."""

from functools import partial

import baseline_params as bp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamba_jax import belief
from mamba_jax.belief import Indices, Networks, Transitions
from mamba_jax.config_baselines import VaeConfig
from mamba_jax.nn.belief import Belief
from mamba_jax.ops.optim import apply_gradients

NETWORKS = ("reward_decoder", "state_decoder", "task_decoder")


def transitions(golden: dict[str, np.ndarray], squash: bool = False) -> Transitions:
    """The batch of an ELBO or decoder file, one meta-episode per column and nothing masked, as released."""
    reward = jnp.asarray(golden["in/rewards"])[..., 0]
    steps, batch = reward.shape
    action = jnp.asarray(golden["in/actions"], reward.dtype)
    next_state = jnp.asarray(golden["in/next_obs"])
    task = golden.get("in/tasks", golden.get("in/task"))
    return Transitions(
        prev_state=jnp.asarray(golden["in/prev_obs"]),
        action=jnp.tanh(action) if squash else action,
        next_state=next_state,
        seen=next_state,
        reward=reward,
        first=jnp.zeros((steps + 1, batch), bool).at[0].set(True),
        valid=jnp.ones((steps, batch), bool),
        cell=(5 * next_state[..., 0] + next_state[..., 1]).astype(int),
        task=None if task is None else jnp.asarray(task),
    )


def build(golden: dict[str, np.ndarray], latent: int, kind: str = "bernoulli") -> tuple[Networks, belief.Params]:
    """The networks of a file and their parameters."""
    nets = {name: bp.tensors(golden, f"param/{name}") for name in ("encoder", *NETWORKS)}
    modules, params = {"encoder": None}, {}
    if nets["encoder"]:
        modules["encoder"], params["encoder"] = bp.encoder(nets["encoder"]), bp.to_flax(nets["encoder"])
    if nets["reward_decoder"]:
        modules["reward_decoder"], params["reward_decoder"] = bp.reward_decoder(nets["reward_decoder"], latent, kind)
    if nets["state_decoder"]:
        modules["state_decoder"], params["state_decoder"] = bp.state_decoder(nets["state_decoder"])
    if nets["task_decoder"]:
        modules["task_decoder"] = bp.plain_mlp(nets["task_decoder"])
        params["task_decoder"] = bp.to_flax(nets["task_decoder"])
    return Networks(**modules), params


def golden_grads(golden: dict[str, np.ndarray], params: belief.Params, prefix: str = "grad") -> belief.Params:
    """Golden arrays shaped like the parameters, e.g. gradients."""
    kinds = {"reward_decoder": "trunk", "state_decoder": "trunk"}
    if "trunk" not in params.get("reward_decoder", {"params": {"trunk": None}})["params"]:
        kinds["reward_decoder"] = "cells"
    return {name: bp.to_flax(bp.tensors(golden, f"{prefix}/{name}"), kinds.get(name, "")) for name in params}


@pytest.mark.golden_files("baselines", "vb_a_encoder_*.npz")
def test_golden_encoder(golden_file, golden, x64):
    net = bp.tensors(golden, "param/encoder")
    encoder, params = bp.encoder(net), bp.to_flax(net)
    actions, states = jnp.asarray(golden["in/seq/actions"]), golden["in/seq/states"]
    actions = jnp.tanh(actions) if "tanhact" in golden_file.stem else actions
    rewards, done = golden["in/seq/rewards"][..., 0], golden["in/online/done"][..., 0] > 0
    steps, batch = rewards.shape
    data = Transitions(
        states, actions, states, states, rewards, jnp.zeros((steps + 1, batch), bool).at[0].set(True), None
    )
    parts = ("sample", "mean", "logvar", "hidden")

    def outputs(params, detach_every=None):
        result = belief.encode(encoder, params, data, detach_every)
        noise = jnp.concatenate([golden["in/seq/noise_prior"], golden["in/seq/noise_steps"]])
        return {"sample": belief.sample_latent(result, noise), **result._asdict()}

    def weighted(params, names, detach_every=None):
        result = outputs(params, detach_every)
        return sum((result[name] * golden[f"in/seq/grad_weight_{name}"]).sum() for name in names), result

    def online(params):
        return encoder.apply(
            params, jnp.zeros((batch, encoder.hidden)), actions, states, rewards, done, feed_first=True
        )

    start = belief.prior(encoder, params, batch)
    bp.close(start, Belief(*(golden[f"out/prior/{name}"][0] for name in parts[1:])))
    bp.close(belief.sample_latent(start, golden["in/prior/noise"][0]), golden["out/prior/sample"][0])

    grad = jax.jit(jax.value_and_grad(weighted, has_aux=True), static_argnums=(1, 2))
    (loss, result), grads = grad(params, parts)
    bp.close(result, {name: golden[f"out/seq/{name}"] for name in parts})
    bp.close(loss, golden["out/seq/weighted_loss"])
    bp.close_grads(grads, bp.to_flax(bp.tensors(golden, "grad/seq/encoder")))

    (name,) = {key.split("/")[1] for key in golden if key.startswith("out/tbptt")}
    (loss, result), grads = grad(params, ("mean", "logvar"), int(name.removeprefix("tbptt")))
    bp.close({part: result[part] for part in parts[1:3]}, {part: golden[f"out/{name}/{part}"] for part in parts[1:3]})
    bp.close(loss, golden[f"out/{name}/weighted_loss"])
    bp.close_grads(grads, bp.to_flax(bp.tensors(golden, f"grad/{name}/encoder")))

    result = jax.jit(online)(params)
    sample = belief.sample_latent(result, golden["in/online/noise"])
    bp.close(result, Belief(*(golden[f"out/online/{name}"] for name in parts[1:])))
    bp.close(sample, golden["out/online/sample"])
    for key in (key for key in golden if key.startswith("out/latent_for_policy/")):
        relu, sampled = "relu1" in key, "sample1" in key
        latent = sample if sampled else belief.policy_latent(result)
        bp.close(jax.nn.relu(latent) if relu else latent, golden[key])


@pytest.mark.golden_files("baselines", "hx_a_encoder_*.npz")
def test_golden_encoder_restarts_at_the_prior(golden, x64):
    net = bp.tensors(golden, "param/encoder")
    done = golden["in/done"][..., 0] > 0
    first = jnp.concatenate([jnp.ones_like(done[:1]), done])
    states = golden["in/states"]
    data = Transitions(states, golden["in/actions"], states, states, golden["in/rewards"][..., 0], first, None)
    result = jax.jit(belief.encode, static_argnums=0)(bp.encoder(net), bp.to_flax(net), data)
    bp.close(result, Belief(*(golden[f"out/{name}"] for name in ("mean", "logvar", "hidden"))))


@pytest.mark.golden_files("baselines", "vb_b_decoder_*.npz")
def test_golden_decoders(golden_file, golden, x64):
    latent = jnp.asarray(golden["in/latent"])
    kind = "categorical" if "categorical" in golden_file.stem else "bernoulli"
    networks, params = build(golden, latent.shape[-1], kind)
    data = transitions(golden, squash=golden_file.stem.endswith("tanh"))

    def loss(params):
        errors = belief.reconstruction_errors(networks, params, latent, data, lambda x: x)
        if networks.task_decoder is not None:
            errors["task"] = belief.task_error(networks, params, latent, data)
        return sum(error.sum() for error in errors.values()), errors

    (_, errors), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    names = {"reward": "rew", "state": "state", "task": "task"}
    bp.close(errors, {name: golden[f"out/{names[name]}_loss"] for name in errors})
    bp.close_grads(grads, golden_grads(golden, params))
    if "out/cell_index" in golden:
        logits = networks.reward_decoder.apply(params["reward_decoder"], latent)
        bp.close(logits, golden["out/head_raw"])
        chosen = networks.reward_decoder.log_probs(logits, golden["out/cell_index"])[0]
        bp.close(jnp.exp(chosen), golden["out/rew_pred"][..., 0])


def vae_config(cfg: dict[str, np.ndarray]) -> VaeConfig:
    """The released loss: KL and task loss summed over the batch, except where the release loops over ELBO terms."""

    def optional(name: str):
        value = cfg.get(name, -1)
        return None if value < 0 else value.item()

    by_term = bool(cfg.get("split_batches_by_elbo", False))
    return VaeConfig(
        reward_scale=float(cfg["rew_loss_coeff"]),
        state_scale=float(cfg.get("state_loss_coeff", 1)),
        task_scale=float(cfg.get("task_loss_coeff", 1)),
        kl_scale=float(cfg["kl_weight"]),
        average_rows=bool(cfg["vae_avg_elbo_terms"]) and not by_term,
        average_transitions=bool(cfg["vae_avg_reconstruction_terms"]) and not by_term,
        sum_over_batch=not by_term,
        decode_only_past=bool(cfg.get("decode_only_past", False)),
        kl_to_standard=bool(cfg.get("kl_to_gauss_prior", False)),
        deterministic_latent=bool(cfg.get("disable_stochasticity_in_latent", False)),
        detach_every=optional("tbptt_stepsize"),
        normalise_targets=bool(cfg.get("normalise_rew_targets", False)),
    )


def elbo_indices(golden: dict[str, np.ndarray], batch: int) -> Indices:
    rows = golden.get("in/elbo_indices")
    rows = None if rows is None else jnp.asarray(rows.reshape(-1, batch))
    transitions = golden.get("in/decode_indices")
    if transitions is not None:
        transitions = jnp.asarray(transitions.reshape(len(rows), -1, batch))
    return Indices(rows, transitions)


@pytest.mark.golden_files("baselines", "*_c_elbo_*.npz")
def test_golden_elbo(golden, x64):
    cfg = bp.tensors(golden, "in/cfg")
    config = vae_config(cfg)
    data = transitions(golden, squash=bool(cfg.get("norm_actions_post_sampling", False)))
    latent = golden["out/latent_mean"].shape[-1] * (2 if config.deterministic_latent else 1)
    networks, params = build(golden, latent)
    noise = golden.get("in/latent_noise", np.zeros_like(golden["out/latent_mean"]))
    indices = elbo_indices(golden, noise.shape[1])
    scale = belief.largest_reward(jnp.ones(()), data.reward)

    def loss(params):
        reward_scale = scale if config.normalise_targets else 1.0
        value, losses = belief.elbo_loss(networks, params, config, data, noise, indices, reward_scale)
        posterior = belief.encode(networks.encoder, params["encoder"], data)
        return value, (losses, posterior, belief.kl_terms(posterior, data.first, to_standard=config.kl_to_standard))

    (value, (losses, posterior, kl)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    bp.close(value, golden["out/loss_elbo"])
    names = {"reward": "rew"}
    bp.close(losses, {name: golden[f"out/loss_{names.get(name, name)}"] for name in losses})
    bp.close((posterior.mean, posterior.logvar), (golden["out/latent_mean"], golden["out/latent_logvar"]))
    bp.close(kl, golden["out/kl_terms_all"])
    bp.close_grads(grads, golden_grads(golden, params))
    if "out/max_abs_reward_seen" in golden:
        bp.close(scale, golden["out/max_abs_reward_seen"])
    if any(key.startswith("out/param_after_one_update") for key in golden):
        limit = float(cfg["encoder_max_grad_norm"])
        optimizer = belief.make_optimizer(float(cfg["lr_vae"]), limit if limit > 0 else None)
        updated, _, _ = jax.jit(partial(apply_gradients, optimizer))(grads, optimizer.init(params), params)
        bp.close(updated, golden_grads(golden, params, "out/param_after_one_update"))
