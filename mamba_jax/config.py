"""Frozen configurations. Every count that shapes the compiled program is an int; `validate` names what is wrong."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

Sections = dict[str, dict[str, Any]]
"""Values of some fields of some sections of a configuration, by name."""

Configuration = TypeVar("Configuration")

MAX_INT32 = 2**31 - 1
"""The largest number of environment steps that a state can count."""


class ConfigError(ValueError):
    """A configuration that cannot work; the message is one sentence that says what to change."""


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with `message` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


def with_sections(config: Configuration, sections: Sections) -> Configuration:
    """The configuration with other values in some of its sections; sections that it does not have are left out."""
    own = {item.name for item in dataclasses.fields(config)} & set(sections)  # type: ignore[arg-type]
    changes = {name: dataclasses.replace(getattr(config, name), **sections[name]) for name in own}
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


@dataclass(frozen=True)
class WorldModelConfig:
    """Sizes and losses of the world model.

    deter, stoch, classes: GRU width D, number S of discrete latents, classes K of each. hidden: width of the layers
    around the GRU. input_layers, output_layers: their number before and behind it.
    encoder_layers, decoder_layers, encoder_units: MLPs of encoder and decoders. cnn_depth: channels of the first
    convolution. head_layers, head_units: reward and continuation heads. unimix: uniform share of every categorical.
    free_nats, dynamics_free_nats: least values of the representation and the dynamics term of the balanced KL
    (DreamerV3, equation 5), one value as published; below them a term trains nothing. dynamics_scale,
    representation_scale: weights of the two terms. decoder_scale: weight of the observation's reconstruction, which is
    1 / deviation^2 of the decoders' normal distribution; 1 as published.
    window: odd width of the local reconstruction window, 0 for none. pairing: which feature meets which window,
    "aligned" (a step's own window, as the paper means it) or "released" (the release's permutation).
    subsample: hidden states per sequence that the heads see, 0 for all.
    reward_and_time: encoder and decoders see the observation's entries reward and time; the reward head predicts the
    reward in any case. normalise: bring the vectors that an environment shows to mean 0 and deviation 1 in the prefill,
    so that small quantities count in the reconstruction; not as published.
    recall_scale: weight of a head that tells from the memory h the rewards, cut to [0, 1], of other rows, as does
    VariBAD's decoder (Zintgraf et al., 2020, section 3.1); 0 as published, which leaves it out.
    unroll: steps of the recurrence that are compiled into one iteration of its loop; results do not depend on it.
    eval_latents: what the policy sees in evaluations and the final test, "sampled" latents as released, or their
    "mode"; training always samples.
    """

    deter: int = 512
    stoch: int = 16
    classes: int = 16
    hidden: int = 64
    input_layers: int = 1
    output_layers: int = 1
    encoder_layers: int = 2
    decoder_layers: int = 2
    encoder_units: int = 512
    cnn_depth: int = 32
    head_layers: int = 2
    head_units: int = 128
    unimix: float = 0.01
    free_nats: float = 1.0
    dynamics_free_nats: float = 1.0
    dynamics_scale: float = 0.5
    representation_scale: float = 0.1
    decoder_scale: float = 1.0
    window: int = 3
    pairing: Literal["aligned", "released"] = "aligned"
    subsample: int = 64
    reward_and_time: bool = True
    normalise: bool = False
    recall_scale: float = 0.0
    unroll: int = 1
    eval_latents: Literal["sampled", "mode"] = "sampled"


@dataclass(frozen=True)
class ActorCriticConfig:
    """Behaviour learning in imagination.

    horizon: imagined states H, the start included. starts: imagined starts per sequence, 0 for every state.
    rewarded_starts: share of the starts that are drawn from the whole batch in proportion to the number of rewards met
    so far, without effect where starts is 0; 0 as published. unrewarded_starts: the same for rows without reward.
    discount, lambda_: of the lambda return. entropy: bonus. gradient: "dynamics" through the model or "reinforce".
    normalise_reinforce: divide REINFORCE advantages by the return range (the release does not).
    scale_floor: least divisor of advantages. layers, units: actor and critic. slow_rate: slow critic's step.
    """

    horizon: int = 10
    starts: int = 512
    rewarded_starts: float = 0.0
    unrewarded_starts: float = 0.0
    discount: float = 0.997
    lambda_: float = 0.95
    entropy: float = 3e-4
    gradient: Literal["dynamics", "reinforce"] = "dynamics"
    normalise_reinforce: bool = False
    scale_floor: float = 1.0
    layers: int = 2
    units: int = 128
    slow_rate: float = 0.02


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam for the world model, the actor and the critic.

    model_rate, actor_rate, critic_rate: learning rates. model_eps, behaviour_eps: Adam's eps, of the model and of actor
    and critic. model_clip, behaviour_clip: largest global norms of their gradients. cooldown: share of the run, at its
    end, at a fifth of the rates; 0 as published.
    """

    model_rate: float = 1e-4
    model_eps: float = 1e-8
    model_clip: float = 1000.0
    actor_rate: float = 3e-5
    critic_rate: float = 3e-5
    behaviour_eps: float = 1e-5
    behaviour_clip: float = 100.0
    cooldown: float = 0.0


@dataclass(frozen=True)
class HorizonConfig:
    """Length of the training sequences: from `initial` to the whole meta-episode, linearly over `growth_steps`.

    initial: steps, 0 for the whole meta-episode from the start. growth_steps: true environment steps.
    """

    initial: int = 0
    growth_steps: int = 0


@dataclass(frozen=True)
class DataConfig:
    """Collection and replay.

    lanes: environments in parallel. explore: share of them that act at random in one sub-episode of every meta-episode,
    0 as published. burst: where it is not 0, they do so in bursts of so many steps on average instead, half of the
    time. train_ratio: updates per environment step and sub-episode, as the paper counts.
    batch: sequences per update. capacity: environment steps in the replay. prefill: random meta-episodes before
    training, rounded up to whole rounds. context: "meta_episode" (sequences from its start) or "window" (random cuts).
    window: length of a cut, for context "window".
    """

    lanes: int = 10
    explore: float = 0.0
    burst: int = 0
    train_ratio: float = 0.03
    batch: int = 16
    capacity: int = 1_000_000
    prefill: int = 25
    context: Literal["meta_episode", "window"] = "meta_episode"
    window: int = 64


@dataclass(frozen=True)
class RunConfig:
    """The host's side of a run.

    steps: true environment steps. eval_every: collected meta-episodes between evaluations. eval_tasks: fixed tasks of
    an evaluation. test_tasks: fresh tasks of the final test. checkpoint_minutes: between checkpoints.
    """

    steps: int = 1_000_000
    eval_every: int = 200
    eval_tasks: int = 20
    test_tasks: int = 1000
    checkpoint_minutes: float = 10.0


@dataclass(frozen=True)
class MambaConfig:
    """MAMBA, and with other values Dreamer-Vanilla and Dreamer-Tune."""

    world_model: WorldModelConfig = field(default_factory=WorldModelConfig)
    actor_critic: ActorCriticConfig = field(default_factory=ActorCriticConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    horizon: HorizonConfig = field(default_factory=HorizonConfig)
    data: DataConfig = field(default_factory=DataConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def validate(self, num_steps: int) -> None:
        """Checks the configuration for meta-episodes of `num_steps` steps; raises ConfigError."""
        check_values(self)
        model, behaviour, data = self.world_model, self.actor_critic, self.data
        require(model.window % 2 == 1 or model.window == 0, "world_model.window must be odd, or 0 for no window.")
        require(behaviour.horizon >= 2, "actor_critic.horizon counts the start and must be at least 2.")
        require(
            behaviour.rewarded_starts + behaviour.unrewarded_starts <= 1,
            "actor_critic.rewarded_starts and unrewarded_starts are shares of the starts: together at most 1.",
        )
        require(0 <= self.optimizer.cooldown <= 1, "optimizer.cooldown is a share of the run: it must lie in [0, 1].")
        require(0 <= data.explore <= 1, "data.explore is a share of the lanes: it must lie in [0, 1].")
        require(
            data.explore == 0 or round(data.explore * data.lanes) > 0,
            f"data.explore ({data.explore}) is less than one of {data.lanes} lanes: choose more lanes, or 0.",
        )
        require(behaviour.slow_rate <= 1, "actor_critic.slow_rate is a share of the difference: it must be at most 1.")
        require(0 < behaviour.discount <= 1, "actor_critic.discount must lie in (0, 1].")
        require(0 <= behaviour.lambda_ <= 1, "actor_critic.lambda_ must lie in [0, 1].")
        require(0 <= model.unimix < 1, "world_model.unimix must lie in [0, 1).")
        require(
            self.horizon.initial <= num_steps,
            f"horizon.initial ({self.horizon.initial}) exceeds the meta-episode ({num_steps} steps): lower it.",
        )
        require(
            data.context != "window" or 0 < data.window <= num_steps,
            f"data.window ({data.window}) must lie between 1 and the meta-episode's {num_steps} steps.",
        )
        require(data.capacity <= MAX_INT32, f"data.capacity must be at most {MAX_INT32}: lower it.")
        require(
            data.capacity >= data.lanes * num_steps,
            f"data.capacity must hold one meta-episode per lane, {data.lanes * num_steps} steps: raise it.",
        )

    def prefill_steps(self, num_steps: int) -> int:
        """Environment steps before training, where no meta-episode of `num_steps` steps ends early."""
        return prefill_rounds(self.data) * self.data.lanes * num_steps


def prefill_rounds(data: DataConfig) -> int:
    """Rounds of random meta-episodes before training: `prefill` rounded up to whole ones, at least one."""
    return max(1, math.ceil(data.prefill / data.lanes))


ZERO_ALLOWED = {
    "window",
    "subsample",
    "starts",
    "rewarded_starts",
    "unrewarded_starts",
    "cooldown",
    "entropy",
    "unimix",
    "free_nats",
    "dynamics_free_nats",
    "initial",
    "growth_steps",
    "prefill",
    "explore",
    "burst",
}


def check_values(config, prefix: str = "") -> None:
    """Every number in a nested configuration must be positive, or zero where zero has a meaning, and every choice one
    of those that there are."""
    hints = get_type_hints(type(config))
    for item in dataclasses.fields(config):
        value, path, hint = getattr(config, item.name), prefix + item.name, hints[item.name]
        if dataclasses.is_dataclass(value):
            check_values(value, path + ".")
        elif get_origin(hint) is Literal:
            choices = get_args(hint)
            require(value in choices, f"{path} is {value!r}: choose one of: {', '.join(choices)}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            zero_ok = item.name in ZERO_ALLOWED or item.name.endswith("_scale") or item.name == "lambda_"
            require(
                value > 0 or (zero_ok and value == 0),
                f"{path} is {value}: it must be {'at least 0' if zero_ok else 'positive'}.",
            )
