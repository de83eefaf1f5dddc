"""One table: algorithm x environment x size -> configuration."""

from dataclasses import replace

from mamba_jax.config import (
    ActorCriticConfig,
    ConfigError,
    HorizonConfig,
    MambaConfig,
    OptimizerConfig,
    RunConfig,
    Sections,
    WorldModelConfig,
    with_sections,
)
from mamba_jax.presets_baselines import CONFIGS, LANES, BaselineConfig, baseline_preset
from mamba_jax.types import MetaEnvironment

SIZES = ("paper", "small", "fast", "debug")

# The release's configuration by environment (paper, appendix; true environment steps: the release counts twice).
# Sections hold what differs from the defaults of `MambaConfig`.
DEEP = {"encoder_layers": 4, "decoder_layers": 4}
FAST_RATES = {"model_rate": 2e-4, "actor_rate": 6e-5, "critic_rate": 6e-5}
PAPER: dict[str, Sections] = {
    "halfcircle": {
        "world_model": DEEP,
        "actor_critic": {"horizon": 2},
        "data": {"train_ratio": 0.01},
        "run": {"steps": 1_000_000},
    },
    "point-wind": {"world_model": DEEP, "data": {"train_ratio": 0.2}, "run": {"steps": 1_000_000}},
    "escape-room": {"world_model": DEEP, "data": {"train_ratio": 0.2}, "run": {"steps": 2_000_000}},
    "rooms": {
        "world_model": DEEP,
        "actor_critic": {"horizon": 2, "gradient": "reinforce"},
        "horizon": {"initial": 50, "growth_steps": 2_500_000},
        "data": {"train_ratio": 0.1},
        "run": {"steps": 3_000_000, "eval_tasks": 100},
    },
    "reacher": {
        "optimizer": FAST_RATES,
        "horizon": {"initial": 50, "growth_steps": 2_500_000},
        "run": {"steps": 5_000_000},
    },
    "humanoid-dir": {
        "optimizer": FAST_RATES,
        "horizon": {"initial": 50, "growth_steps": 7_500_000},
        "run": {"steps": 15_000_000},
    },
}

DREAMERS = ("mamba", "dreamer-vanilla", "dreamer-tune")
"""Algorithms that are configurations of MAMBA's code."""

DREAMER_CUT = 64
"""Rows of the training sequences of the Dreamer variants."""

SMALL_UPDATES = 16
"""Size small: updates of a round."""
SMALL_ROUNDS = {"halfcircle": 1000, "point-wind": 1000, "rooms": 900, "escape-room": 1000, "reacher": 1300}
"""Rounds of a run at size small where they are not 300; three seeds are meant to take 90 minutes on two CPU cores."""
LONGER_ROUNDS: dict[tuple[str, int | None], int] = {
    ("halfcircle", None): 2400, ("point-wind", None): 1700, ("escape-room", None): 1700, ("rooms", 3): 1500,
    ("rooms", 4): 1500,
}  # fmt: skip
"""Rounds at size small alone, by environment and sub-tasks, where more than `SMALL_ROUNDS` were found to help."""
SMALL_GROWTH_ROUNDS = {"reacher": 500}
"""Rounds until the horizon is the whole meta-episode, where it grows and they are not 60."""

FAST_BATCH = 64
"""Size fast: sequences of an update."""
FAST_UNROLL = 5
"""Size fast: steps in one iteration of the recurrence, whose kernels are launched together."""
FAST_SHARE = 0.3
"""Size fast: its updates, as a share of `SMALL_ROUNDS`."""

# What size small changes further by environment, in the manner of `PAPER` (found as docs/results.md and trials.md say).
# On CPU cores an update costs nearly by its batch, so half the batch buys almost twice the updates.
SHARP_MODEL = {"dynamics_free_nats": 0.0, "decoder_scale": 10.0}
SHARP_BEHAVIOUR = {"horizon": 6, "starts": 64, "rewarded_starts": 0.5, "discount": 0.98, "slow_rate": 0.1}
SHARP_RATES = {"model_rate": 1e-3, "model_clip": 20.0, "critic_rate": 1e-3}
# Policies vary from one evaluation to the next: the best is chosen better by more of them, over more tasks.
CLOSE_WATCH = {"eval_tasks": 400, "eval_every": 512}
SMALL: dict[str, Sections] = {
    "halfcircle": {
        "world_model": {"pairing": "released", "eval_latents": "mode"},
        "actor_critic": {"discount": 0.98, "unrewarded_starts": 0.5},
        "optimizer": {"cooldown": 0.125},
        "data": {"explore": 0.25, "burst": 12, "batch": 8},
        "run": CLOSE_WATCH,
    },
    "point-wind": {
        "world_model": {"pairing": "released", "eval_latents": "mode"},
        "actor_critic": {"discount": 0.98},
        "data": {"explore": 0.25, "burst": 30, "batch": 8},
        "run": CLOSE_WATCH,
    },
    "rooms": {
        "world_model": SHARP_MODEL | {"stoch": 1, "classes": 64, "pairing": "released"},
        "actor_critic": SHARP_BEHAVIOUR | {"entropy": 1e-2},
        "optimizer": SHARP_RATES,
        "data": {"explore": 0.25, "burst": 6},
    },
    "escape-room": {
        "world_model": SHARP_MODEL | {"stoch": 2, "classes": 32, "pairing": "released", "eval_latents": "mode"},
        "actor_critic": SHARP_BEHAVIOUR | {"entropy": 3e-2, "gradient": "reinforce"},
        "optimizer": SHARP_RATES | {"behaviour_eps": 1e-5},
        "data": {"explore": 0.25, "burst": 12, "prefill": 512},
        "run": CLOSE_WATCH,
    },
    # The action costs about as much as early reward pays, so the divisor of advantages starts high enough for the
    # entropy bonus to outweigh it. The horizon grows slowly, since short sequences cost less.
    "reacher": {
        "world_model": {"pairing": "released", "normalise": True, "recall_scale": 5.0},
        "actor_critic": {"discount": 0.98, "scale_floor": 10.0, "entropy": 1e-3},
        "optimizer": {"cooldown": 0.125},
        "horizon": {"initial": 150},
        "data": {"explore": 0.25, "burst": 30, "batch": 8},
        "run": CLOSE_WATCH,
    },
}

# What size small changes further with a number of sub-tasks, where it was tried.
SMALL_SUBTASKS: dict[tuple[str, int | None], Sections] = {
    ("rooms", 3): {"world_model": {"eval_latents": "mode"}, "run": CLOSE_WATCH},
}

# What size fast changes in turn, in the manner of `PAPER`.
ALIGNED: Sections = {"world_model": {"pairing": "aligned"}}
FAST: dict[str, Sections] = {
    "rooms": ALIGNED,
    "escape-room": ALIGNED,
    "point-wind": {"actor_critic": {"discount": 0.997}},
}

DEBUG_MODEL = WorldModelConfig(
    deter=16, stoch=4, classes=4, hidden=16, encoder_layers=1, decoder_layers=1, encoder_units=16, cnn_depth=2,
    head_units=16, subsample=8,
)  # fmt: skip


def preset(algorithm: str, env: MetaEnvironment, size: str = "paper") -> MambaConfig | BaselineConfig:
    """The configuration of an algorithm on an environment.

    size: "paper" (as published), "small" (learns the simple environments in minutes on two CPU cores), "fast" (for
    little wall time on an accelerator) or "debug" (seconds; learns nothing). An environment without a row of its own
    gets the defaults of its kind of action.
    Raises ConfigError for an unknown algorithm or size.
    """
    if size not in SIZES:
        raise ConfigError(f"Unknown size {size!r}: choose one of {', '.join(SIZES)}.")
    if algorithm in CONFIGS:
        return baseline_preset(algorithm, env, size)
    if algorithm not in DREAMERS:
        raise unknown_algorithm(algorithm)
    config = paper_config(env)
    if size == "small":
        config = small_config(config, env)
    elif size == "fast":
        config = fast_config(config, env)
    elif size == "debug":
        config = debug_config(config, env)
    if algorithm == "dreamer-vanilla" and size != "debug":
        config = vanilla_config(config, env, size)
    return config if algorithm == "mamba" else without_modifications(config, env)


def default_config(algorithm: str) -> MambaConfig | BaselineConfig:
    """The configuration of an algorithm with the defaults of all its fields. Raises ConfigError for an unknown one."""
    if algorithm in DREAMERS:
        return MambaConfig()
    if algorithm not in CONFIGS:
        raise unknown_algorithm(algorithm)
    return CONFIGS[algorithm]()


def unknown_algorithm(name: str) -> ConfigError:
    """What to say of an algorithm that there is not."""
    return ConfigError(f"Unknown algorithm {name!r}: choose one of {', '.join((*DREAMERS, *CONFIGS))}.")


def paper_config(env: MetaEnvironment) -> MambaConfig:
    """MAMBA as published for this environment, clipped to its meta-episode."""
    row = PAPER.get(base_name(env))
    if row is None:
        discrete = hasattr(env.action_space, "n")
        row = {"actor_critic": {"gradient": "reinforce"}} if discrete else {}
    return fitting(with_sections(MambaConfig(), row), env)


def fitting(config: MambaConfig, env: MetaEnvironment) -> MambaConfig:
    """The configuration with its first horizon no longer than the meta-episode."""
    initial = min(config.horizon.initial, env.num_steps)
    return replace(config, horizon=replace(config.horizon, initial=initial))


def without_modifications(config: MambaConfig, env: MetaEnvironment) -> MambaConfig:
    """DreamerV3's sequences: random cuts of 64 rows, every head on every row, imagination from every row.

    Leaves out what MAMBA adds: context from the start of the meta-episode, local reconstruction, horizon schedule and
    subsampling, and bursts of exploration, which show what is remembered for longer than a cut. Reward and time stay in
    the observation. The pairing, which has no meaning without windows, is the default.
    """
    return replace(
        config,
        world_model=replace(
            config.world_model, window=0, subsample=0, pairing=WorldModelConfig.pairing, recall_scale=0.0
        ),
        actor_critic=replace(config.actor_critic, starts=0),
        horizon=HorizonConfig(),
        data=replace(config.data, context="window", window=min(DREAMER_CUT, env.num_steps), burst=0),
    )


def vanilla_config(config: MambaConfig, env: MetaEnvironment, size: str) -> MambaConfig:
    """DreamerV3's published hyperparameters (arXiv 2301.04104, appendix) in place of MAMBA's for the environment.

    Paper: size S, 512 replayed rows for every environment step. Smaller sizes keep their networks and their updates.
    """
    gradient = config.actor_critic.gradient
    behaviour = replace(ActorCriticConfig(), gradient=gradient, horizon=15, normalise_reinforce=True)
    if size != "paper":
        behaviour = replace(behaviour, units=config.actor_critic.units)
        model = replace(
            config.world_model, dynamics_free_nats=1.0, decoder_scale=1.0, normalise=False, eval_latents="sampled"
        )
        data = replace(config.data, explore=0.0)
        return replace(config, world_model=model, actor_critic=behaviour, optimizer=OptimizerConfig(), data=data)
    rows_per_update = config.data.batch * min(DREAMER_CUT, env.num_steps)
    return replace(
        config,
        world_model=replace(WorldModelConfig(), stoch=32, classes=32, hidden=512, head_units=512),
        actor_critic=replace(behaviour, units=512),
        optimizer=OptimizerConfig(),
        data=replace(config.data, train_ratio=512 / rows_per_update * env.sub_episodes),
    )


def base_name(env: MetaEnvironment) -> str:
    """The registry name of an environment: "rooms-4" -> "rooms"."""
    return env.name if env.name in PAPER else env.name.rpartition("-")[0] or env.name


def small_config(config: MambaConfig, env: MetaEnvironment) -> MambaConfig:
    """Small networks, many lanes, larger steps: learns on two CPU cores (how it was chosen: docs/trials.md).

    Where reward is rare the paper's actor learns little at first: its gradients lie below Adam's eps of 1e-5, and the
    least divisor 1 keeps advantages tiny. Here both are lower, imagination is longer and learning rates are higher.
    On Rooms and EscapeRoom the model imagines rare reward as often as it happens instead.
    """
    lanes = 4 if base_name(env) == "humanoid-dir" else LANES["small"]
    rows = lanes * env.num_steps
    row = base_name(env), getattr(env, "subtasks", None)
    rounds = LONGER_ROUNDS.get(row, small_rounds(env))
    growth_rounds = SMALL_GROWTH_ROUNDS.get(base_name(env), 60)
    config = replace(
        config,
        world_model=replace(
            config.world_model, deter=128, stoch=8, classes=8, hidden=64, encoder_layers=2, decoder_layers=2,
            encoder_units=64, head_units=64,
        ),
        actor_critic=replace(config.actor_critic, horizon=8, starts=32, units=64, scale_floor=0.03),
        optimizer=replace(
            config.optimizer, model_rate=5e-4, actor_rate=3e-4, critic_rate=3e-4, behaviour_eps=1e-8
        ),
        horizon=replace(config.horizon, growth_steps=growth_rounds * rows if config.horizon.growth_steps else 0),
        data=replace(
            config.data, lanes=lanes, train_ratio=SMALL_UPDATES * env.sub_episodes / rows, prefill=64,
            capacity=max(1_000_000, 8 * rows),
        ),
        run=replace(config.run, steps=rounds * rows, eval_every=16 * lanes, eval_tasks=100),
    )  # fmt: skip
    config = with_sections(config, SMALL.get(base_name(env), {}))
    return fitting(with_sections(config, SMALL_SUBTASKS.get(row, {})), env)


def small_rounds(env: MetaEnvironment) -> int:
    """Rounds of a run at size small on environments of this kind."""
    return SMALL_ROUNDS.get(base_name(env), 300)


def fast_config(config: MambaConfig, env: MetaEnvironment) -> MambaConfig:
    """Size small with more lanes, larger batches, larger steps and fewer of them: for an accelerator.

    There an update costs some eighty small kernels for each step of the sequence, whatever the batch is. Exploration in
    bursts, the released pairing on Rooms and EscapeRoom, Point-Wind's discount, starts without reward, recall, a
    cooldown, the most likely latents, `CLOSE_WATCH` and `LONGER_ROUNDS` were not measured at this size and are left
    out.
    """
    small = small_config(config, env)
    model, behaviour, rates, data, run = small.world_model, small.actor_critic, small.optimizer, small.data, small.run
    lanes = LANES["fast"]
    more_steps = FAST_SHARE * lanes / data.lanes
    config = replace(
        small,
        world_model=replace(model, unroll=FAST_UNROLL, eval_latents="sampled", recall_scale=0.0),
        actor_critic=replace(behaviour, slow_rate=2.5 * behaviour.slow_rate, unrewarded_starts=0.0),
        optimizer=replace(
            rates, model_rate=2 * rates.model_rate, actor_rate=2 * rates.actor_rate, critic_rate=2 * rates.critic_rate,
            cooldown=0.0,
        ),
        horizon=replace(small.horizon, growth_steps=round(more_steps * small.horizon.growth_steps)),
        data=replace(
            data, lanes=lanes, batch=FAST_BATCH, train_ratio=data.train_ratio * data.lanes / lanes,
            capacity=max(1_000_000, 12 * lanes * env.num_steps), burst=0,
        ),
        run=replace(
            run, steps=round(FAST_SHARE * small_rounds(env)) * lanes * env.num_steps, eval_every=4 * lanes,
            eval_tasks=100,
        ),
    )  # fmt: skip
    return with_sections(config, FAST.get(base_name(env), {}))


def debug_config(config: MambaConfig, env: MetaEnvironment) -> MambaConfig:
    """A tiny configuration that runs in seconds."""
    lanes = 2
    rows = lanes * env.num_steps
    return replace(
        config,
        world_model=DEBUG_MODEL,
        actor_critic=replace(config.actor_critic, horizon=min(config.actor_critic.horizon, 3), starts=4, units=16),
        horizon=HorizonConfig(initial=min(config.horizon.initial, 10, env.num_steps), growth_steps=4 * rows),
        data=replace(
            config.data, lanes=lanes, batch=2, train_ratio=2 * env.sub_episodes / rows, prefill=2, capacity=4 * rows,
            window=min(16, env.num_steps),
        ),
        run=RunConfig(steps=6 * rows, eval_every=2 * lanes, eval_tasks=4, test_tasks=8),
    )  # fmt: skip
