"""HyperX's exploration bonuses against its release."""

import baseline_params as bp
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mamba_jax import belief, bonus
from mamba_jax.belief import Networks, Transitions
from mamba_jax.config_baselines import BonusConfig, VaeConfig
from mamba_jax.nn.belief import Belief
from mamba_jax.ops import running_stats
from mamba_jax.ops.gae import gae

LETTERS = {"hyperstate": "hs", "state": "s", "belief": "b", "vae_error": "v"}


@pytest.mark.golden_files("baselines", "hx_e_rnd_*.npz")
def test_golden_distillation(golden, x64):
    distillation, prior, predictor = bp.distillation(
        bp.tensors(golden, "param/rnd_prior"), bp.tensors(golden, "param/rnd_predictor")
    )
    scaled = bool(golden["in/cfg/rnd_norm_inputs"])
    names = ("state", "belief")
    stats = [running_stats.init(golden[f"in/call0/{name}"].shape[-1:], float) for name in names]
    optimizer = optax.chain(bp.recording(1), optax.adam(float(golden["in/cfg/rnd_lr"])))

    @jax.jit
    def evaluate(stats, inputs, counted):
        updated = [running_stats.update(stat, x) for stat, x in zip(stats, inputs, strict=True)]
        stats = jax.tree.map(lambda new, old: jnp.where(counted, new, old), updated, stats)
        inputs = bonus.scale_inputs(stats, inputs) if scaled else inputs
        outputs = (
            distillation.prior.apply(prior, inputs),
            distillation.predictor.apply(predictor, jnp.concatenate(inputs, -1)),
        )
        return stats, outputs, bonus.distillation_error(distillation, prior, predictor, inputs)

    @jax.jit
    def train(predictor, state, inputs):
        inputs = bonus.scale_inputs(stats, inputs) if scaled else inputs
        return bonus.update_predictor(distillation, optimizer, prior, predictor, state, inputs)

    for call in range(sum(key.endswith("/bonus") for key in golden)):
        at, before = f"call{call}", f"call{call - 1}"
        # the release can compute a bonus without adding to its statistics; the file shows which calls did
        counted = call == 0 or (golden[f"out/{at}/input_rms0_mean"] != golden[f"out/{before}/input_rms0_mean"]).any()
        inputs = [jnp.asarray(golden[f"in/{at}/{name}"]) for name in names]
        stats, outputs, error = evaluate(stats, inputs, counted)
        bp.close(outputs, (golden[f"out/{at}/prior_output"], golden[f"out/{at}/predictor_output"]))
        bp.close(error, golden[f"out/{at}/bonus"][..., 0])
        for index, stat in enumerate(stats):
            expected = tuple(golden[f"out/{at}/input_rms{index}_{part}"] for part in ("mean", "var"))
            bp.close((stat.mean, stat.var), expected)
    state = optimizer.init(predictor)
    for step in range(sum(key.startswith("in/train") and key.endswith("/state") for key in golden)):
        state = (optimizer.init(predictor)[0], state[1])
        inputs = [jnp.asarray(golden[f"in/train{step}/{name}"]) for name in names]
        predictor, state, loss = train(predictor, state, inputs)
        bp.close(loss, golden[f"out/train{step}/loss"])
        grads = jax.tree.map(lambda x: x[0], state[0][1])
        bp.close_grads(grads, bp.to_flax(bp.tensors(golden, f"grad/train{step}/rnd_predictor")))
    bp.close(predictor, bp.to_flax(bp.tensors(golden, "out/after_training/rnd_predictor")))


def bonus_config(cfg: dict[str, np.ndarray], states: int) -> BonusConfig:
    entries = tuple(cfg["state_expl_idx"].tolist())
    clip = float(cfg["intrinsic_rew_clip_rewards"])
    weights = {
        f"{name}_scale": float(cfg[f"weight_exploration_bonus_{name}"]) if cfg[f"exploration_bonus_{name}"] else 0.0
        for name in bonus.NAMES
    }
    return BonusConfig(
        **weights, clip=None if clip < 0 else clip, state_entries=None if len(entries) == states else entries
    )


class Rollouts:
    """Everything of a bonus file that does not change between calls."""

    def __init__(self, golden: dict[str, np.ndarray]):
        self.golden, self.cfg = golden, bp.tensors(golden, "in/cfg")
        self.config = bonus_config(self.cfg, golden["in/call0/prev_state"].shape[-1])
        nets = {name: bp.tensors(golden, f"param/{name}") for name in ("encoder", "reward_decoder", "state_decoder")}
        encoder = bp.encoder(nets["encoder"])
        reward, self.params = bp.reward_decoder(nets["reward_decoder"], encoder.latent)
        self.params = {"encoder": bp.to_flax(nets["encoder"]), "reward_decoder": self.params}
        state = None
        if nets["state_decoder"]:
            state, self.params["state_decoder"] = bp.state_decoder(nets["state_decoder"])
        self.networks = Networks(encoder, reward, state)
        self.vae = VaeConfig(
            reward_scale=float(self.cfg["rew_loss_coeff"]), state_scale=float(self.cfg["state_loss_coeff"])
        )
        self.distilled = {
            name: bp.distillation(*(bp.tensors(golden, f"param/{name}/rnd_{net}") for net in ("prior", "predictor")))
            for name in bonus.active(self.config)
            if name != "vae_error"
        }
        self.optimizer = optax.adam(float(self.cfg["rnd_lr"]))

    def call(self, index: int) -> dict[str, np.ndarray]:
        """Inputs of one rollout, all float64."""
        return {name: jnp.asarray(x, float) for name, x in bp.tensors(self.golden, f"in/call{index}").items() if x.ndim}

    def raw(self, predictors: dict, rows: dict) -> dict[str, jax.Array]:
        """Bonuses before normalisation. As released, the autoencoder's error uses the observation after a reset."""
        after = Belief(rows["latent_mean"][1:], rows["latent_logvar"][1:], None)
        latent = belief.policy_latent(after)
        raw = {}
        for name, (distillation, prior, _) in self.distilled.items():
            inputs = bonus.explored(name, rows["next_state"], latent, self.config.state_entries)
            raw[name] = bonus.distillation_error(distillation, prior, predictors[name], inputs)
        if self.config.vae_error_scale:
            state, reward = rows["prev_state"], rows["rewards_raw"][..., 0]
            data = Transitions(
                state[:-1], rows["actions"], state[1:], state[1:], reward, None, jnp.ones(reward.shape, bool)
            )
            sample = belief.sample_latent(after, rows["vae_bonus_noise"][1:])
            raw["vae_error"] = bonus.vae_error(self.networks, self.params, self.vae, sample, data)
        return raw

    def rollout(self, predictors: dict, returns: dict, annealing, rows: dict):
        """Bonuses of a rollout and the value targets with them. As released, returns restart one step late."""
        ended = rows["done"][:-1, :, 0] > 0
        gamma = float(self.cfg["policy_gamma"])
        raw = self.raw(predictors, rows)
        returns, parts, total = bonus.total_bonus(returns, raw, ended, gamma, self.config, annealing)
        values = rows["value_preds"].at[-1].set(rows["next_value"])[..., 0]
        rewards = rows["rewards_normalised" if self.cfg["norm_rew_for_policy"] else "rewards_raw"][..., 0] + total
        uncut = rows["bad_masks"][1:, :, 0] if self.cfg["use_proper_time_limits"] else None
        targets = gae(rewards, values, rows["masks"][1:, :, 0], gamma, float(self.cfg["policy_tau"]), uncut)
        return returns, parts, total, targets

    def train(self, predictors: dict, states: dict, batch: dict):
        """One update of every predictor."""
        reward = batch["rewards"][..., 0]
        first = jnp.zeros((len(reward) + 1, reward.shape[1]), bool).at[0].set(True)
        seen = batch["next_obs"]
        data = Transitions(seen, batch["actions"], seen, seen, reward, first, None)
        encoded = belief.encode(self.networks.encoder, self.params["encoder"], data)
        times, lanes = batch["timestep_indices"].astype(int), jnp.arange(reward.shape[1])[:, None]
        state, latent = seen[times, lanes], belief.policy_latent(encoded)[times + 1, lanes]
        for name, (distillation, prior, _) in self.distilled.items():
            inputs = bonus.explored(name, state, latent, self.config.state_entries)
            predictors[name], states[name], _ = bonus.update_predictor(
                distillation, self.optimizer, prior, predictors[name], states[name], inputs
            )
        return predictors, states


@pytest.mark.golden_files("baselines", "hx_e_bonus_*.npz")
def test_golden_bonus(golden, x64):
    rollouts = Rollouts(golden)
    config, total_steps = rollouts.config, int(rollouts.cfg["num_frames"])
    predictors = {name: predictor for name, (_, _, predictor) in rollouts.distilled.items()}
    states = {name: rollouts.optimizer.init(predictor) for name, predictor in predictors.items()}
    lanes = golden["in/call0/prev_state"].shape[1]
    returns = {name: running_stats.init_returns(lanes, float) for name in bonus.active(config)}
    annealing = jnp.ones(())
    rollout, train = jax.jit(rollouts.rollout), jax.jit(rollouts.train)
    for call in range(sum(key.endswith("/bonus_total") for key in golden)):
        rows, out = rollouts.call(call), bp.tensors(golden, f"out/call{call}")
        bp.close(annealing, out["curr_weight"])
        returns, parts, total, targets = rollout(predictors, returns, annealing, rows)
        bp.close(parts, {name: out[f"part_{name}"][..., 0] for name in parts})
        bp.close(total, out["bonus_total"][..., 0])
        bp.close(targets, out["returns"][..., 0])
        for name, state in returns.items():
            expected = {part: out[f"ret_{LETTERS[name]}_{part}"] for part in ("mean", "var", "count", "carry")}
            bp.close(state.carry, expected.pop("carry")[..., 0])
            bp.close((state.stats.mean, state.stats.var), (expected["mean"][0], expected["var"][0]))
            bp.close(state.stats.count, expected["count"])
        if "rnd_update/curr_weight_after" in out:
            batch = {name.removeprefix("rnd_update/"): x for name, x in rows.items() if name.startswith("rnd_update/")}
            predictors, states = train(predictors, states, batch)
            for name in predictors:
                bp.close(predictors[name], bp.to_flax(bp.tensors(out, f"rnd_update/{name}/rnd_predictor")))
            annealing = bonus.annealing_weight(golden[f"in/call{call}/rnd_update/frames"], total_steps)
            bp.close(annealing, out["rnd_update/curr_weight_after"])


@pytest.mark.golden_files("baselines", "hx_e_annealing.npz")
def test_golden_annealing(golden, x64):
    bp.close(bonus.annealing_weight(golden["in/frames"], float(golden["in/num_frames"])), golden["out/weight"])
