"""RL2's updates through the encoder, and the storage of trajectories, against the releases of VariBAD and HyperX."""

from functools import partial

import baseline_params as bp
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mamba_jax import belief, ppo
from mamba_jax.belief import Transitions
from mamba_jax.config_baselines import PPOConfig
from mamba_jax.nn.belief import Belief
from mamba_jax.nn.ppo_policy import log_prob
from mamba_jax.ops.gae import gae, standardise
from mamba_jax.replay import Replay, Rows, insert


class Rl2File:
    """One file of an RL2 update. HyperX's has few settings of its own: the others are constants of that release."""

    def __init__(self, stem: str, golden: dict[str, np.ndarray]):
        self.golden, cfg = golden, bp.tensors(golden, "in/cfg")
        self.cfg = {name: float(value) for name, value in cfg.items()}
        limit = self.cfg.get("encoder_max_grad_norm", 0.5)
        self.config = PPOConfig(
            clip=self.cfg["ppo_clip_param"],
            value_scale=self.cfg.get("policy_value_loss_coef", 0.5),
            entropy=self.cfg["policy_entropy_coef"],
            epochs=sum(key.startswith("in/permutation_epoch") for key in golden),
            minibatches=int(self.cfg.get("ppo_num_minibatch", 2)),
        )
        self.feed_first = stem.startswith("vb")
        self.relu = bool(self.cfg.get("add_nonlinearity_to_latent", True))
        squash = "sample" if self.cfg.get("norm_actions_post_sampling", False) else "none"
        nets = {name: bp.tensors(golden, f"param/{name}") for name in ("encoder", "policy")}
        self.encoder, self.policy = bp.encoder(nets["encoder"]), bp.policy(nets["policy"], squash)
        self.params = {name: bp.to_flax(net) for name, net in nets.items()}
        self.optimizer = optax.multi_transform(
            {
                "policy": ppo.make_optimizer(self.cfg["lr_policy"], self.cfg.get("policy_max_grad_norm", 0.5)),
                "encoder": ppo.make_optimizer(self.cfg["lr_vae"], limit if limit > 0 else None),
            },
            {"policy": "policy", "encoder": "encoder"},
        )

    def beliefs(self, encoder: dict) -> Belief:
        """All rows encoded anew, through the ends of tasks; the first row is the stored one and a constant."""
        actions = jnp.asarray(self.golden["in/actions"], float)
        actions = jnp.tanh(actions) if self.policy.squash == "sample" else actions
        rewards, done = self.golden["in/rewards_raw"][..., 0], self.golden["in/done"][1:, :, 0] > 0
        start = jnp.asarray(self.golden["in/hidden_states"][0])
        rows = (actions, self.golden["in/next_state"], rewards, done)
        later = self.encoder.apply(encoder, start, *rows, self.feed_first)
        first = Belief(self.golden["in/latent_mean_collected"][0], self.golden["in/latent_logvar_collected"][0], start)
        return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), first, later)

    def seen_of(self, encoded: Belief) -> jax.Array:
        """What the policy sees of beliefs."""
        latent = belief.policy_latent(encoded)
        return jax.nn.relu(latent) if self.relu else latent

    def samples(self) -> ppo.Samples:
        """Everything of the update but the beliefs, (T, lanes)."""
        golden, cfg = self.golden, self.cfg
        values = jnp.asarray(golden["in/value_preds"]).at[-1].set(golden["in/next_value"])[..., 0]
        rewards = golden["in/rewards_normalised" if cfg.get("norm_rew_for_policy", True) else "in/rewards_raw"][..., 0]
        uncut = golden["in/bad_masks"][1:, :, 0] if cfg.get("use_proper_time_limits", True) else None
        masks = golden["in/masks"][1:, :, 0]
        targets = gae(rewards, values, masks, cfg["policy_gamma"], cfg["policy_tau"], uncut)
        actions = jnp.asarray(golden["in/actions"])
        actions = actions[..., 0] if self.policy.spec.discrete else actions
        latent = self.seen_of(self.beliefs(self.params["encoder"]))[:-1]
        output = self.policy.apply(self.params["policy"], None, latent)
        old = log_prob(output.parameters, actions, self.policy.squash)
        advantage = standardise(targets - values[:-1])
        return ppo.Samples(None, None, actions, values[:-1], old, targets, advantage, jnp.ones_like(targets))

    def loss(self, samples: ppo.Samples, params: dict, index: jax.Array):
        """The loss of some transitions, whose beliefs come from encoding everything."""
        encoded = self.beliefs(params["encoder"])
        samples = samples.replace(latent=self.seen_of(encoded)[:-1])
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[index], samples)
        total, losses = ppo.surrogate_loss(self.policy, params["policy"], flat, self.config)
        return total, losses | {"mean": encoded.mean, "logvar": encoded.logvar}

    def update(self):
        """Samples; parameters after all updates; gradients and losses of each; the beliefs after the last."""
        orders = np.stack([self.golden[f"in/permutation_epoch{epoch}"] for epoch in range(self.config.epochs)])
        indices = ppo.split_minibatches(jnp.asarray(orders), self.config.minibatches)
        optimizer = optax.chain(bp.recording(len(indices)), self.optimizer)
        samples = self.samples()
        loss = partial(self.loss, samples)
        params, state, losses = ppo.update(loss, optimizer, self.params, optimizer.init(self.params), indices)
        return samples, params, state[0][1], losses, self.beliefs(params["encoder"])


@pytest.mark.golden_files("baselines", "*_f_rl2_*.npz")
def test_golden_rl2_update(golden_file, golden, x64):
    file = Rl2File(golden_file.stem, golden)
    samples, params, grads, losses, after = jax.jit(file.update)()
    steps = len(losses["loss"])
    bp.close(samples.target, golden["out/returns"][:-1, :, 0])
    for part in ("mean", "logvar"):
        names = [f"out/embeddings_after_{step}_updates/{part}" for step in range(steps + 1)]
        for name, value in zip(names, [*losses.pop(part), getattr(after, part)], strict=True):
            if name in golden:
                bp.close(value, golden[name])
    if "out/old_action_log_probs" in golden:
        bp.close(samples.log_prob, golden["out/old_action_log_probs"][..., 0])
        bp.close(samples.advantage, golden["out/advantages_normalised"][..., 0])
        means = {"loss_value": "value_loss", "loss_action": "action_loss", "entropy": "entropy", "loss": "total"}
        bp.close(
            {k: losses[k].mean() for k in means}, {k: golden[f"out/mean_over_updates/{v}"] for k, v in means.items()}
        )
    for step in range(steps):
        bp.close(losses["loss"][step], golden[f"out/minibatch{step}/total_loss"])
        for name in ("policy", "encoder"):
            own = jax.tree.map(lambda x, step=step: x[step], grads[name])
            if f"out/minibatch{step}/grad_norm_{name}" in golden:
                bp.close(optax.tree.norm(own), golden[f"out/minibatch{step}/grad_norm_{name}"])
            expected = bp.tensors(golden, f"grad/minibatch{step}/{name}")
            if expected:
                bp.close_grads(own, bp.to_flax(expected))
    bp.close(params, {name: bp.to_flax(bp.tensors(golden, f"out/param_after_update/{name}")) for name in params})


def stream(golden: dict[str, np.ndarray], case: str) -> dict[str, np.ndarray]:
    """Transitions of all processes in the order of time, (T, lanes, ...)."""
    return {name: golden[f"in/{case}/{name}"] for name in ("prev", "act", "next", "rew", "done")}


def finished(done: np.ndarray) -> list[tuple[int, int, int]]:
    """(lane, first, one past the last transition) of every finished trajectory, in the order of storage."""
    start, found = [0] * done.shape[1], []
    for time, row in enumerate(done):
        for lane in np.flatnonzero(row):
            found.append((int(lane), start[lane], time + 1))
            start[lane] = time + 1
    return found


def ring(size: int, blocks: list[int]) -> tuple[list[int], list[int]]:
    """The release's buffer: slot of every trajectory, and how many may be sampled after each block of insertions.

    A block that does not fit starts over at 0; what may be sampled lags behind by one block.
    """
    cursor, filled, slots, lengths = 0, 0, [], []
    for block in blocks:
        filled, cursor = (cursor, 0) if cursor + block > size else (max(filled, cursor), cursor)
        slots += range(cursor, cursor + block)
        cursor += block
        lengths.append(filled)
    return slots, lengths


@pytest.mark.golden_files("baselines", "vb_f_vae_buffer.npz")
@pytest.mark.parametrize("case", ["sync", "staggered"])
def test_golden_rows_hold_the_release_buffer(golden, case, x64):
    """Rows with restarts in them hold the same trajectories as the release's buffer, and give the same beliefs for
    the unfinished ones."""
    data, size = stream(golden, case), int(golden["in/buffer_size"])
    done = data["done"][..., 0] > 0
    first = np.concatenate([np.ones_like(done[:1]), done])
    start, stop = (np.asarray(x) for x in belief.spans(jnp.asarray(first)))
    complete, lanes = finished(done), done.shape[1]
    blocks = [block for row in done for block in ([lanes] if row.all() else [1] * row.sum())]
    slots, filled = ring(size, blocks)
    assert [filled[-1], slots[-1] + 1] == [golden[f"out/{case}/{name}"][-1] for name in ("buffer_len", "insert_idx")]
    held = dict(zip(slots, complete, strict=True))
    names = {"final_prev_state": "prev", "final_next_state": "next", "final_actions": "act", "final_rewards": "rew"}
    for slot, (lane, begin, end) in held.items():
        assert (start[begin, lane], end - begin) == (begin, golden[f"out/{case}/trajectory_lens"][-1, slot])
        for name, own in names.items():
            bp.close(data[own][begin:end, lane], golden[f"out/{case}/{name}"][: end - begin, slot])
    running = golden[f"out/{case}/curr_timestep"][-1]
    assert (stop[-1] - start[-1] == running).all()

    net = bp.tensors(golden, f"param/{case}/encoder")
    seen = jnp.asarray(data["next"])
    rows = Transitions(
        seen, jnp.asarray(data["act"]), seen, seen, jnp.asarray(data["rew"][..., 0]), jnp.asarray(first), None
    )
    last = jax.tree.map(lambda x: x[-1], jax.jit(partial(belief.encode, bp.encoder(net)))(bp.to_flax(net), rows))
    bp.close(last, Belief(*(golden[f"out/{case}/reencoded_{name}"] for name in ("mean", "logvar", "hidden"))))


@pytest.mark.golden_files("baselines", "vb_f_vae_buffer.npz")
def test_golden_replay_holds_the_release_buffer(golden, x64):
    """Where all lanes finish together, slot i of lane j is the release's entry i lanes + j."""
    data, size, length = stream(golden, "sync"), int(golden["in/buffer_size"]), int(golden["in/max_traj_len"])
    lanes = data["done"].shape[1]
    names = {"final_prev_state": "prev", "final_next_state": "next", "final_actions": "act", "final_rewards": "rew"}
    rounds = len(data["done"]) // length
    chunks = {
        name: jnp.asarray(data[name][: rounds * length]).reshape(rounds, length, lanes, -1) for name in names.values()
    }
    flags = jnp.zeros((lanes, size // lanes, length), bool)
    store = {name: jnp.zeros((lanes, size // lanes, length, x.shape[-1])) for name, x in chunks.items()}
    replay = Replay(Rows(store, flags, flags, flags), jnp.int32(0))
    for index in range(rounds):
        chunk = {name: jnp.moveaxis(x[index], 0, 1) for name, x in chunks.items()}
        replay = insert(replay, Rows(chunk, flags[:, 0], flags[:, 0], flags[:, 0]))
    for name, own in names.items():
        held = jnp.moveaxis(replay.rows.observation[own], (1, 0, 2), (0, 1, 2)).reshape(
            -1, length, chunks[own].shape[-1]
        )
        bp.close(jnp.moveaxis(held, 0, 1), golden[f"out/sync/{name}"][:, : len(held)])
