"""Frozen configurations of RL2, VariBAD and HyperX."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from mamba_jax.config import RunConfig, check_values, require


@dataclass(frozen=True)
class PolicyConfig:
    """The policy network.

    layers: widths of the tanh layers of actor and critic. state_embedding, latent_embedding: widths of tanh embeddings
    of state and belief, none to take them as they are. initialiser: of the layers, "normc" (incoming weights of unit
    norm) or "orthogonal", gain 5/3. squash: where a tanh bounds continuous actions, on the "mean", on the "sample" or
    nowhere ("none": samples are clipped to [-1, 1]). see_state: whether the policy sees the state next to the belief.
    normalise_state, normalise_latent: by running mean and variance. relu_latent: pass the belief through a ReLU.
    """

    layers: tuple[int, ...] = (128, 128, 128)
    state_embedding: int | None = 64
    latent_embedding: int | None = 64
    initialiser: Literal["normc", "orthogonal"] = "normc"
    squash: Literal["none", "mean", "sample"] = "none"
    see_state: bool = True
    normalise_state: bool = True
    normalise_latent: bool = True
    relu_latent: bool = False


@dataclass(frozen=True)
class PPOConfig:
    """Advantages and the clipped surrogate (Schulman et al., 2017).

    discount, lambda_: of the advantages. clip: of the probability ratio and of the change of values.
    epochs: passes over a rollout. minibatches: updates per pass. value_scale, entropy: weights of the losses.
    huber, clip_values: form of the value loss. learning_rate, eps, optimizer, max_grad_norm: of the update.
    anneal: learning rate linearly to 0 over the run. cut_time_limits: let no credit pass from one sub-episode to the
    next, as the release does. reward_clip: bound of rewards divided by the deviation of their discounted sum, none to
    leave rewards as they are.
    """

    discount: float = 0.99
    lambda_: float = 0.9
    clip: float = 0.1
    epochs: int = 2
    minibatches: int = 8
    value_scale: float = 0.5
    entropy: float = 0.001
    huber: bool = True
    clip_values: bool = True
    learning_rate: float = 7e-4
    eps: float = 1e-8
    optimizer: Literal["adam", "rmsprop"] = "adam"
    max_grad_norm: float = 0.5
    anneal: bool = False
    cut_time_limits: bool = False
    reward_clip: float | None = 10.0


@dataclass(frozen=True)
class EncoderConfig:
    """The recurrent encoder of action, state and reward.

    latent: length L of the belief's mean. hidden: width of the GRU. action_embedding: width of the embedded action,
    none to leave actions out. state_embedding, reward_embedding: widths of the other embedded inputs.
    layers_before, layers_after: widths of the ReLU layers around the GRU.
    """

    latent: int = 5
    hidden: int = 128
    action_embedding: int | None = 16
    state_embedding: int = 32
    reward_embedding: int = 16
    layers_before: tuple[int, ...] = ()
    layers_after: tuple[int, ...] = ()


@dataclass(frozen=True)
class RecurrentConfig:
    """How RL2 trains its encoder through the policy's loss.

    learning_rate, max_grad_norm: of the encoder's own Adam. minibatch: what a minibatch is a share of, "lanes" (whole
    sequences, each encoded once) or "transitions" (as released: all sequences are encoded for every minibatch).
    feed_first: show the encoder the first observation of a meta-episode; the release does not.
    """

    learning_rate: float = 7e-4
    max_grad_norm: float | None = 0.5
    minibatch: Literal["lanes", "transitions"] = "lanes"
    feed_first: bool = True


@dataclass(frozen=True)
class VaeConfig:
    """Decoders and evidence lower bound of VariBAD.

    reward_layers, state_layers: widths of the decoders' ReLU layers. state_embedding, action_embedding: widths of
    their embedded inputs. decode_reward, decode_state: decoders in use. use_prev_state, use_action: further inputs of
    the reward decoder. reward_scale, state_scale, task_scale, kl_scale: weights of the losses; that of
    the task counts where `belief.Networks` has a task decoder, which none of the algorithms here makes.
    average_rows, average_transitions: mean instead of sum over ELBO terms, and over the reconstructions of each.
    sum_over_batch: sum KL and task loss over the batch, as released, where the rest is averaged.
    decode_only_past: reconstruct no transitions after the belief. kl_to_standard: KL from N(0, I) at every step.
    deterministic_latent: decode mean and log-variance instead of a sample. detach_every: transitions after which
    gradients are cut. subsample_rows, subsample_transitions: ELBO terms, and reconstructions of each, drawn at random,
    none for all. normalise_targets: divide reward targets by the largest absolute reward seen.
    """

    reward_layers: tuple[int, ...] = (64, 32)
    state_layers: tuple[int, ...] = (64, 32)
    state_embedding: int = 32
    action_embedding: int = 16
    decode_reward: bool = True
    decode_state: bool = False
    use_prev_state: bool = False
    use_action: bool = False
    reward_scale: float = 1.0
    state_scale: float = 1.0
    task_scale: float = 1.0
    kl_scale: float = 1.0
    average_rows: bool = False
    average_transitions: bool = False
    sum_over_batch: bool = False
    decode_only_past: bool = False
    kl_to_standard: bool = False
    deterministic_latent: bool = False
    detach_every: int | None = None
    subsample_rows: int | None = 50
    subsample_transitions: int | None = 50
    normalise_targets: bool = False


@dataclass(frozen=True)
class VaeTrainingConfig:
    """Updates of VariBAD's autoencoder.

    batch: sequences of an update. updates: per round. capacity: sequences in the replay. prefill: environment steps
    before training. learning_rate: of one Adam over encoder and decoders. max_grad_norm: of each network by itself,
    none for no limit.
    """

    batch: int = 15
    updates: int = 3
    capacity: int = 10_000
    prefill: int = 5000
    learning_rate: float = 1e-3
    max_grad_norm: float | None = None


@dataclass(frozen=True)
class BonusConfig:
    """HyperX's exploration bonuses (Zintgraf et al., 2021).

    hyperstate_scale, state_scale, belief_scale, vae_error_scale: weight of each bonus, 0 for off. clip: bound of a
    normalised bonus, none for no bound. anneal: weights linearly to 0 over the run. layers, outputs: of the two
    networks of random network distillation. embedding: width of the prior network's embedding of each input.
    prior_gain: factor on the prior's initial parameters. normalise_inputs: divide the networks' inputs by their
    standard deviation. learning_rate: of the predictor. updates: of the predictor in a round. batch: sequences of an
    update. samples: rows of each sequence. state_entries: entries of the state to explore, none for all.
    """

    hyperstate_scale: float = 0.01
    state_scale: float = 0.0
    belief_scale: float = 0.0
    vae_error_scale: float = 0.1
    clip: float | None = None
    anneal: bool = True
    layers: tuple[int, ...] = (256, 256)
    outputs: int = 128
    embedding: int = 64
    prior_gain: float = 10.0
    normalise_inputs: bool = False
    learning_rate: float = 1e-4
    updates: int = 1
    batch: int = 11
    samples: int = 11
    state_entries: tuple[int, ...] | None = None


@dataclass(frozen=True)
class CollectConfig:
    """Collection. lanes: environments in parallel; a round is one meta-episode in each."""

    lanes: int = 16


@dataclass(frozen=True)
class RL2Config:
    """RL2: a recurrent policy trained by PPO."""

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    recurrent: RecurrentConfig = field(default_factory=RecurrentConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def validate(self, num_steps: int) -> None:
        """Checks the configuration for meta-episodes of `num_steps` steps; raises ConfigError."""
        lanes = self.collect.lanes
        check_entries(self)
        check_ppo(self, lanes if self.recurrent.minibatch == "lanes" else lanes * num_steps)

    def prefill_steps(self, num_steps: int) -> int:
        """Environment steps before training: none."""
        del num_steps
        return 0


@dataclass(frozen=True)
class VaribadConfig:
    """VariBAD: PPO on state and belief, the belief from a variational autoencoder."""

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    vae: VaeConfig = field(default_factory=VaeConfig)
    vae_training: VaeTrainingConfig = field(default_factory=VaeTrainingConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def validate(self, num_steps: int) -> None:
        """Checks the configuration for meta-episodes of `num_steps` steps; raises ConfigError."""
        check_entries(self)
        check_ppo(self, self.collect.lanes * num_steps)
        check_vae(self, num_steps)

    def prefill_steps(self, num_steps: int) -> int:
        """Environment steps before training, where no meta-episode of `num_steps` steps ends early."""
        steps = self.collect.lanes * num_steps
        return steps * prefill_rounds(self.vae_training, steps)


@dataclass(frozen=True)
class HyperXConfig(VaribadConfig):
    """HyperX: VariBAD with exploration bonuses."""

    bonus: BonusConfig = field(default_factory=BonusConfig)

    def validate(self, num_steps: int) -> None:
        """Checks the configuration for meta-episodes of `num_steps` steps; raises ConfigError."""
        super().validate(num_steps)
        scales = [getattr(self.bonus, item.name) for item in fields(self.bonus) if item.name.endswith("_scale")]
        require(max(scales) > 0, "All scales of bonus are 0: give one a weight, or choose varibad.")


def check_entries(config: Any) -> None:
    """As `check_values`, and entries of tuples must be positive too."""
    check_values(config)
    for section in fields(config):
        for item in fields(getattr(config, section.name)):
            value = getattr(getattr(config, section.name), item.name)
            if isinstance(value, tuple) and item.name != "state_entries":
                require(
                    min(value, default=1) > 0, f"{section.name}.{item.name} is {value}: every width must be positive."
                )


def check_ppo(config: RL2Config | VaribadConfig, samples: int) -> None:
    """What PPO needs of its settings; `samples`: what minibatches are shares of."""
    ppo = config.ppo
    require(len(config.policy.layers) > 0, "policy.layers is empty: give the policy a layer.")
    require(0 < ppo.discount <= 1, "ppo.discount must lie in (0, 1].")
    require(0 <= ppo.lambda_ <= 1, "ppo.lambda_ must lie in [0, 1].")
    require(
        ppo.minibatches <= samples,
        f"ppo.minibatches ({ppo.minibatches}) exceeds the {samples} samples to share: lower it or raise collect.lanes.",
    )


def prefill_rounds(training: VaeTrainingConfig, steps_per_round: int) -> int:
    """Rounds by the untrained policy before training: `prefill` rounded up to whole ones."""
    return -(-training.prefill // steps_per_round)


def check_vae(config: VaribadConfig, num_steps: int) -> None:
    """What the autoencoder needs of its settings."""
    require(
        config.vae.decode_reward or config.vae.decode_state, "vae decodes nothing: set decode_reward or decode_state."
    )
    require(
        config.vae_training.capacity >= config.collect.lanes,
        f"vae_training.capacity must hold one sequence per lane, {config.collect.lanes}: raise it.",
    )
    cut = config.vae.detach_every
    require(
        cut is None or cut <= num_steps,
        f"vae.detach_every ({cut}) exceeds the meta-episode ({num_steps} steps): lower it.",
    )
