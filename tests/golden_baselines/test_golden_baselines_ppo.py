"""Returns, normalisers and complete PPO updates against the releases of VariBAD and HyperX."""

import re

import baseline_params as bp
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mamba_jax import belief, ppo
from mamba_jax.config_baselines import PPOConfig
from mamba_jax.nn.belief import Belief
from mamba_jax.nn.ppo_policy import distribution, entropy, log_prob
from mamba_jax.ops import running_stats
from mamba_jax.ops.gae import gae, standardise


@pytest.mark.golden_files("baselines", "vb_d_returns.npz")
def test_golden_returns(golden, x64):
    values = jnp.asarray(golden["in/value_preds_before_bootstrap"]).at[-1].set(golden["in/next_value"])
    compute = jax.jit(gae)
    for case in sorted({key.rpartition("/")[0] for key in golden if key.startswith("out/")}):
        gamma, lam, use_gae, cut, normalised = map(float, re.findall(r"\d+(?:\.\d+)?", case))
        rewards = golden["in/rewards_normalised" if normalised else "in/rewards_raw"]
        uncut = golden["in/bad_masks"][1:] if cut else jnp.ones_like(rewards)
        targets = compute(rewards, values, golden["in/masks"][1:], gamma, lam if use_gae else 1.0, uncut)
        bp.close(targets, golden[f"{case}/returns"])
        bp.close(targets - values[:-1], golden[f"{case}/advantages_raw"])
        bp.close(standardise(targets - values[:-1]), golden[f"{case}/advantages_normalised"])


@pytest.mark.golden_files("baselines", "vb_d_normalisers.npz")
def test_golden_input_statistics(golden, x64):
    stats = running_stats.init(golden["out/torch_rms/mean0"].shape, float)
    for index in range(sum(key.startswith("in/torch_rms/batch") for key in golden)):
        stats = running_stats.update(stats, golden[f"in/torch_rms/batch{index}"])
        expected = (golden[f"out/torch_rms/{part}{index}"] for part in ("mean", "var", "count"))
        bp.close(stats, running_stats.RunningStats(*expected))


@pytest.mark.golden_files("baselines", "*_d_*normaliser*.npz")
def test_golden_reward_normaliser(golden_file, golden, x64):
    """VariBAD zeroes finished returns before counting them, and all returns when any task is drawn anew ("calls")."""
    inputs = {key.rpartition("/")[2]: value for key, value in golden.items() if key.startswith("in/")}
    rewards, done, gamma = inputs["rewards"], inputs["done"], float(inputs["gamma"])
    released = "reset_all_after" in inputs
    scale = jax.jit(running_stats.scale_rewards, static_argnames=("gamma", "clip"))
    for case in sorted({key.rpartition("/")[0] for key in golden if "/clip" in key}):
        clip, resets = re.match(r"clip(\d+)(?:_resetcalls(\d))?", case.rpartition("/")[2]).groups()
        ended, before = done, np.zeros_like(done)
        if released:
            wiped = (inputs["reset_all_after"] > 0) | done.any(1) if int(resets) else np.zeros(len(done), bool)
            ended, before = np.broadcast_to(wiped[:, None], done.shape), done
        state = running_stats.init_returns(rewards.shape[1], float)
        state, scaled = scale(state, rewards, ended, gamma, clip=float(clip), zero_before=before)
        bp.close(scaled, golden[f"{case}/reward_normalised"])
        bp.close((state.stats.mean, state.stats.var), (golden[f"{case}/ret_mean"][-1], golden[f"{case}/ret_var"][-1]))
        bp.close(state.carry, np.where(ended[-1], 0, golden[f"{case}/running_return"][-1]))


def ppo_config(golden_file, cfg: dict[str, np.ndarray]) -> PPOConfig:
    """The released update; HyperX has its constants in the code."""
    return PPOConfig(
        clip=float(cfg["ppo_clip_param"]),
        epochs=int(cfg.get("ppo_num_epochs", 2)),
        minibatches=int(cfg.get("ppo_num_minibatch", 2)),
        value_scale=float(cfg.get("policy_value_loss_coef", cfg.get("value_loss_coef", 0.5))),
        entropy=float(cfg["policy_entropy_coef"]),
        huber=bool(cfg.get("ppo_use_huberloss", True)),
        clip_values=bool(cfg.get("ppo_use_clipped_value_loss", True)),
        learning_rate=float(cfg["lr_policy"]),
        eps=float(cfg.get("policy_eps", 1e-8)),
        optimizer="rmsprop" if "rmsprop" in golden_file.stem else "adam",
        max_grad_norm=float(cfg.get("policy_max_grad_norm", 0.5)),
    )


def squashing(cfg: dict[str, np.ndarray]) -> str:
    if cfg.get("norm_actions_post_sampling", False):
        return "sample"
    return "mean" if cfg.get("norm_actions_pre_sampling", False) else "none"


def minibatches(golden: dict[str, np.ndarray], config: PPOConfig) -> jax.Array:
    orders = np.stack([golden[f"in/permutation_epoch{epoch}"] for epoch in range(config.epochs)])
    return ppo.split_minibatches(jnp.asarray(orders), config.minibatches)


def check_forward(policy, params, golden, output, actions):
    """The network before any normaliser update."""
    bp.close(output.value, golden["out/forward/value"][..., 0])
    bp.close(entropy(output.parameters).mean(), golden["out/forward/entropy_mean"])
    if policy.spec.discrete:
        result = distribution(output.parameters)
        bp.close(result.probs, golden["out/forward/dist_probs"])
        bp.close(jax.nn.log_softmax(output.parameters[0]), golden["out/forward/dist_logits_normalised"])
        bp.close(result.mode(), golden["out/forward/mode"][..., 0])
    else:
        mean, std = output.parameters
        bp.close((mean, std), (golden["out/forward/dist_mean"], golden["out/forward/dist_std"]))


def check_steps(golden, losses, config: PPOConfig):
    """What each update reports, and the means over updates."""
    names = {"loss": "total_loss", "entropy": "entropy_mean", "grad_norm": "grad_norm_policy"}
    for name, key in names.items():
        expected = [golden.get(f"out/minibatch{i}/{key}", np.nan) for i in range(len(losses["loss"]))]
        if not np.isnan(expected).any():
            bp.close(losses[name], np.stack(expected))
    means = {"loss_value": "value_loss", "loss_action": "action_loss", "entropy": "entropy", "loss": "total"}
    bp.close({k: losses[k].mean() for k in means}, {k: golden[f"out/mean_over_updates/{v}"] for k, v in means.items()})


def check_gradients(golden, grads, name: str, steps: int):
    """The gradients of the updates that the file has them for."""
    recorded = {step: bp.tensors(golden, f"grad/minibatch{step}/{name}") for step in range(steps)}
    assert any(recorded.values())
    for step, expected in recorded.items():
        if expected:
            bp.close_grads(jax.tree.map(lambda x, step=step: x[step], grads), bp.to_flax(expected))


@pytest.mark.golden_files("baselines", "*_d_ppo_*.npz")
def test_golden_ppo_update(golden_file, golden, x64):
    cfg = bp.tensors(golden, "in/cfg")
    config = ppo_config(golden_file, cfg)
    policy = bp.policy(bp.tensors(golden, "param/policy"), squashing(cfg))
    params = bp.to_flax(bp.tensors(golden, "param/policy"))
    state = jnp.asarray(golden["in/prev_state"][:-1])
    latent = belief.policy_latent(Belief(golden["in/latent_mean"][:-1], golden["in/latent_logvar"][:-1], None))
    actions = jnp.asarray(golden["in/actions"])
    actions = actions[..., 0] if policy.spec.discrete else actions
    values, targets = (jnp.asarray(golden[f"in/{name}"][:-1, :, 0]) for name in ("value_preds", "returns"))
    normalisers = ppo.Normalisers(
        *(
            running_stats.init((x.shape[-1],), float) if cfg.get(f"norm_{name}_for_policy", True) else None
            for name, x in (("state", state), ("latent", latent))
        )
    )
    if "out/forward/value" in golden:
        output = policy.apply(params, *ppo.normalise_inputs(normalisers, state, latent))
        check_forward(policy, params, golden, output, actions)

    @jax.jit
    def update(params):
        after = ppo.update_normalisers(normalisers, state, latent)
        inputs = ppo.normalise_inputs(after, state, latent)
        old = log_prob(policy.apply(params, *inputs).parameters, actions, policy.squash)
        samples = ppo.Samples(
            *inputs, actions, values, old, targets, standardise(targets - values), jnp.ones_like(values)
        )
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), samples)

        def loss(params, index):
            return ppo.surrogate_loss(policy, params, jax.tree.map(lambda x: x[index], flat), config)

        rule = ppo.make_optimizer(config.learning_rate, config.max_grad_norm, config.eps, config.optimizer)
        indices = minibatches(golden, config)
        optimizer = optax.chain(bp.recording(len(indices)), rule)
        return after, samples, ppo.update(loss, optimizer, params, optimizer.init(params), indices)

    after, samples, (params, ((_, grads), _), losses) = update(params)
    for name, stats in (("state", after.state), ("latent", after.latent)):
        if stats is not None:
            bp.close(
                stats, running_stats.RunningStats(*(golden[f"out/{name}_rms/{p}"] for p in ("mean", "var", "count")))
            )
    bp.close(samples.log_prob, golden["out/old_action_log_probs"][..., 0])
    if "out/advantages_normalised" in golden:
        bp.close(samples.advantage, golden["out/advantages_normalised"][..., 0])
    check_steps(golden, losses, config)
    check_gradients(golden, grads, "policy", len(losses["loss"]))
    expected = bp.tensors(golden, "out/param_after_update/policy")
    if expected:
        bp.close(params, bp.to_flax(expected))


@pytest.mark.golden_files("baselines", "hx_e_annealing.npz")
def test_golden_learning_rate_annealing(golden, x64):
    rounds = 5
    schedule = ppo.annealed(1.0, rounds, updates_per_round=3)
    steps = 3 * golden["in/lr_anneal_update_index"] + 2
    bp.close(schedule(steps), golden[f"out/lr_anneal_factor_train_steps{rounds}"])
