"""Golden values of losses, updates, schedules and sampling: files f, g, h, j and k."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch_names as names
from torch_names import close, force, subset

from mamba_jax import actor_critic as ac
from mamba_jax import world_model as wm
from mamba_jax.algos.mamba import updates_per_round
from mamba_jax.config import DataConfig, HorizonConfig, MambaConfig
from mamba_jax.horizon import scheduled_horizon
from mamba_jax.nn.policy import ActionSpec
from mamba_jax.ops import discrete, returns
from mamba_jax.ops.optim import apply_gradients, clipped_adam


def with_params(golden, golden_file):
    """Parameters `param/*` of the file itself, or of the file that `meta/params_are_those_of` names."""
    if "meta/params_are_those_of" in golden:
        other = golden_file.parent / f"{str(golden['meta/params_are_those_of']).removesuffix('.npz')}.npz"
        with np.load(other, allow_pickle=False) as arrays:
            return subset(dict(arrays), "param/")
    return subset(golden, "param/")


def model_options(golden) -> dict:
    """Options of the world model from the recorded configuration."""
    config = json.loads(str(golden["meta/config_json"]))
    return {
        "window": config["reconstruction_window"],
        "subsample": max(0, config["hidden_states_subsample"]),
        "unimix": config["unimix_ratio"],
        "free_nats": float(config["kl_free"]),
        "dynamics_free_nats": float(config["kl_free"]),
        "dynamics_scale": float(config["dyn_scale"]),
        "representation_scale": float(config["rep_scale"]),
        "pairing": "released",
    }


def project_name(torch_name: str) -> str:
    """Name of a loss term: "multi_decoder.time_step" -> "window_decoder_time"."""
    return torch_name.replace("multi_", "window_").replace(".", "_").replace("time_step", "time")


@pytest.mark.golden_files("model", "f_wm_loss_*.npz")
def test_golden_world_model_loss(golden, golden_file, tolerance):
    params = names.model_params(with_params(golden, golden_file))
    data = names.sequences(golden)
    classes = golden["out/post_logit"].shape[-1]
    options = model_options(golden)
    if not options["window"]:
        params = {name: value for name, value in params.items() if not name.startswith("window_")}
    stoch, action = golden["in/sample_post_index"].shape[-1], data.action.shape[-1]
    model = names.make_model(params, names.shapes_of(data), stoch, classes, action, **options)
    noise = force(names.time_major(golden["in/sample_post_index"]), classes)
    index = names.time_major(golden["in/sequence_indices"]) if "in/sequence_indices" in golden else None
    run = jax.jit(jax.value_and_grad(lambda p: wm.loss(model, p, data, noise, index), has_aux=True))
    (value, (filtered, metrics)), grads = run(params)

    close(value, golden["out/total_loss"], tolerance.value)
    close(metrics["kl_loss"], golden["out/kl_loss"], tolerance.value)
    close(filtered.embed, names.time_major(golden["out/embed"]), tolerance.value)
    close(filtered.latent.deter, names.time_major(golden["out/deter"]), tolerance.value)
    close(filtered.kl_dynamics, names.time_major(golden["out/kl_value"]), tolerance.value)
    for name, expected in subset(golden, "out/loss/").items():
        close(metrics[f"loss_{project_name(name)}"], expected, tolerance.value, name=name)
    names.assert_trees_close(grads, names.model_params(subset(golden, "grad/")), tolerance.grad)
    norms = dict(zip(golden["meta/param_names_for_grad_norms"], golden["out/param_grad_norms"], strict=True))
    expected = names.model_params(
        {name: np.zeros((2, 2)) if name.endswith("weight") else np.zeros(2) for name in norms}
    )
    close(optax.tree.norm(grads), golden["out/global_grad_norm"], tolerance.grad)
    assert len(jax.tree.leaves(expected)) == len(norms)

    if "diag/NOTREF_features_interleaved/loss/multi_cont" in golden:
        aligned = model._replace(config=dataclasses.replace(model.config, pairing="aligned"))
        metrics = jax.jit(lambda p: wm.loss(aligned, p, data, noise, index)[1][1])(params)
        for name, expected in subset(golden, "diag/NOTREF_features_interleaved/loss/").items():
            close(metrics[f"loss_{project_name(name)}"], expected, tolerance.value, name=name)


@pytest.mark.golden_files("model", "g_behavior_*.npz")
def test_golden_behaviour(golden, golden_file, tolerance):
    arrays = with_params(golden, golden_file)
    model_params = names.model_params(arrays)
    actor, critic, slow = (
        names.to_flax(subset(arrays, prefix), names.head_path) for prefix in ("actor.", "value.", "slow_value_before.")
    )
    is_discrete = "in/action_index" in golden
    size = golden["out/action_after_rescale"].shape[-1]
    classes = golden["out/imag_prior_logit_state1on"].shape[-1]
    stoch = golden["in/start_stoch_index"].shape[-1]
    model = names.make_model(model_params, {}, stoch, classes, size)
    behaviour = names.make_behaviour(
        actor,
        critic,
        ActionSpec(size, is_discrete),
        horizon=int(golden["meta/imag_horizon"]),
        discount=float(golden["meta/discount"]),
        lambda_=float(golden["meta/discount_lambda"]),
        entropy=float(golden["meta/actor_entropy"]),
        gradient=str(golden["meta/imag_gradient"]),
        slow_rate=float(golden["meta/slow_target_fraction"]),
    )
    steps = behaviour.config.horizon - 1
    action = force(golden["in/action_index"], size) if is_discrete else jnp.asarray(golden["in/eps"], float)
    noise = ac.Noise(action[:steps], force(golden["in/imag_stoch_index"][1:], classes))
    states = wm.Latent(
        jnp.asarray(golden["in/start_deter"], float),
        wm.flat(jax.nn.one_hot(golden["in/start_stoch_index"], classes, dtype=float)),
    )
    start = ac.make_start(model, model_params, states, None)
    before = jnp.asarray(golden["in/ema_values_before"], float)
    slow = optax.incremental_update(critic, slow, behaviour.config.slow_rate)

    @jax.jit
    def run(actor, critic):
        objective = lambda a: ac.behaviour_loss(model, behaviour, model_params, a, critic, start, noise, before)  # noqa: E731
        (loss, (imagined, targets, after, metrics)), actor_grads = jax.value_and_grad(objective, has_aux=True)(actor)
        value = jax.value_and_grad(lambda c: ac.critic_loss(behaviour, c, slow, imagined, targets))(critic)
        return loss, imagined, targets, after, metrics, actor_grads, value

    loss, imagined, targets, after, metrics, actor_grads, (critic_loss, critic_grads) = run(actor, critic)
    close(imagined.features, golden["out/imag_feat"], tolerance.value)
    close(imagined.action, golden["out/action_after_rescale"][:steps], tolerance.value)
    close(targets.reward, golden["out/reward"][1:, :, 0], tolerance.value)
    close(targets.discount, golden["out/discount"][1:, :, 0], tolerance.value)
    close(targets.value, golden["out/value"][..., 0], tolerance.value)
    close(targets.returns, golden["out/target"][..., 0], tolerance.value)
    close(targets.weights, golden["out/weights"][:steps, :, 0], tolerance.value)
    close(after, golden["out/ema_values_after"], tolerance.value)
    close(metrics["scale"], golden["out/ema_scale"], tolerance.value)
    close(loss, golden["out/actor_loss"], tolerance.value)
    close(critic_loss, golden["out/value_loss"], tolerance.value)
    for grads, prefix in ((actor_grads, "actor."), (critic_grads, "value.")):
        expected = names.to_flax(subset(golden, f"grad/{prefix}"), names.head_path)
        names.assert_trees_close(grads, expected, tolerance.grad, atol=1e-8)
    updated = names.to_flax(subset(golden, "out/slow_value_after."), names.head_path)
    names.assert_trees_close(slow, updated, tolerance.value)
    close(optax.tree.norm(actor_grads), golden["out/actor_grad_norm"], tolerance.grad)
    if is_discrete:
        normalised = dataclasses.replace(behaviour.config, normalise_reinforce=True)
        scaled, _ = ac.actor_loss(behaviour._replace(config=normalised), imagined, targets, after)
        close(scaled, golden["diag/NOTREF_normalised_advantage/loss"], tolerance.value)


@pytest.mark.golden_files("model", "g_misc.npz")
def test_golden_returns_and_their_range(golden, tolerance):
    value_range = jnp.zeros(2)
    for i in range(sum(name.startswith("in/ema/x") for name in golden)):
        value_range = returns.update_range(value_range, jnp.asarray(golden[f"in/ema/x{i}"], float))
        close(value_range, golden[f"out/ema/values{i}"], tolerance.value)
        close(returns.range_scale(value_range), golden[f"out/ema/scale{i}"], tolerance.value)
    reward, value, discount = (jnp.asarray(golden[f"in/lambda/{k}"], float) for k in ("reward", "value", "discount"))
    for name, expected in subset(golden, "out/lambda/return_").items():
        close(returns.lambda_return(reward, discount, value[1:], float(name)), expected, tolerance.value)


@pytest.mark.golden_files("model", "h_adam_clip.npz")
def test_golden_adam_with_clip(golden, tolerance):
    for case in {name.split("/")[1] for name in golden if name.startswith("meta/")}:
        optimizer = clipped_adam(*(float(golden[f"meta/{case}/{k}"]) for k in ("lr", "eps", "clip")))
        params = {k: jnp.asarray(golden[f"in/{case}/{k}0"], float) for k in "ab"}
        state = optimizer.init(params)
        for i in range(sum(name.startswith(f"in/{case}/grad_a") for name in golden)):
            grads = {k: jnp.asarray(golden[f"in/{case}/grad_{k}{i}"], float) for k in "ab"}
            params, state, norm = apply_gradients(optimizer, grads, state, params)
            close(norm, golden[f"out/{case}/norm{i}"], tolerance.value)
            for k in "ab":
                close(params[k], golden[f"out/{case}/{k}{i + 1}"], tolerance.value)


@pytest.mark.golden_files("model", "h_*_step*.npz")
def test_golden_first_steps(golden, tolerance):
    optimizer = clipped_adam(*(float(golden[f"meta/{k}"]) for k in ("lr", "eps", "clip")))
    read = lambda prefix: {k: jnp.asarray(v, float) for k, v in subset(golden, prefix).items()}  # noqa: E731
    params, grads, expected = (read(prefix) for prefix in ("param_before/", "grad/", "param_after/"))
    params, _, _ = apply_gradients(optimizer, grads, optimizer.init(params), params)
    names.assert_trees_close(params, expected, max(tolerance.value, 2e-8))


@pytest.mark.golden_files("model", "j_horizon.npz")
def test_golden_horizon_schedule(golden):
    for name in {key.split("/")[1] for key in golden}:
        length, initial, limit = (int(x) for x in golden[f"meta/{name}/length_initial_limit"])
        config = HorizonConfig(initial=initial, growth_steps=max(0, limit))
        frames = golden[f"in/{name}/agent_frames_at_update"]
        horizon = jax.vmap(lambda steps, c=config, n=length: scheduled_horizon(c, n, steps))(
            jnp.asarray(frames, jnp.int32)
        )
        np.testing.assert_array_equal(horizon, golden[f"out/{name}/horizon_stored_after_update"])


@pytest.mark.golden_files("model", "k_sampling.npz")
def test_golden_updates_per_round(golden):
    for ratio, (lanes, length, sub_episodes), steps, updates in zip(
        golden["in/updates/train_ratio"],
        golden["in/updates/envs_len_episodes"],
        golden["out/updates/env_steps_per_round"],
        golden["out/updates/updates_per_round"],
        strict=True,
    ):
        env = SimpleNamespace(num_steps=int(length * sub_episodes), sub_episodes=int(sub_episodes))
        config = MambaConfig(data=DataConfig(lanes=int(lanes), train_ratio=float(ratio)))
        assert updates_per_round(env, config) == updates
        assert config.data.lanes * env.num_steps == steps


def test_golden_kl_of_equal_distributions_is_zero():
    log_probs = discrete.mix_uniform(jax.random.normal(jax.random.key(0), (3, 4, 5)), 0.01)
    np.testing.assert_allclose(discrete.kl_divergence(log_probs, log_probs), 0, atol=1e-6)
