"""Configurations of RL2, VariBAD and HyperX by environment and size.

The authors' settings (releases of VariBAD and HyperX) where they have an environment like ours, else the nearest:

| ours                                | theirs                                                                        |
|-------------------------------------|-------------------------------------------------------------------------------|
| halfcircle                          | sparse point robot                                                            |
| point-wind, escape-room             | nearest: sparse point robot                                                   |
| rooms                               | rooms; RL2 nearest: gridworld's networks with the discount of rooms           |
| reacher                             | nearest: sparse ant-goal; RL2 nearest: sparse point robot                     |
| humanoid-dir                        | humanoid-dir; HyperX nearest: its VariBAD with the bonuses of sparse ant-goal |
| anything else                       | nearest: sparse point robot, for discrete actions rooms                       |

Of the two releases' settings for VariBAD on the sparse point robot those of HyperX's are taken; RL2 is in VariBAD's
alone. Ant-goal's bonuses look at the position; on humanoid-dir, which has no such entries, at the whole state.
A round is one meta-episode in each of 16 lanes; the releases collect between two thirds and two of them.
Sections hold what differs from the defaults of the configuration's classes.
"""

from dataclasses import replace

from mamba_jax.config import ConfigError, RunConfig, Sections, with_sections
from mamba_jax.config_baselines import HyperXConfig, RL2Config, VaribadConfig
from mamba_jax.types import MetaEnvironment

BaselineConfig = RL2Config | VaribadConfig

CONFIGS: dict[str, type] = {"rl2": RL2Config, "varibad": VaribadConfig, "hyperx": HyperXConfig}

LANES = {"small": 64, "fast": 256}
"""Lanes of the sizes that are not as published."""

RECURRENT_POLICY = {
    "layers": (128,),
    "state_embedding": None,
    "latent_embedding": None,
    "see_state": False,
    "normalise_state": False,
    "normalise_latent": False,
    "relu_latent": True,
}
ROOMS_PPO = {"discount": 0.98, "lambda_": 0.95, "clip": 0.05, "epochs": 8, "minibatches": 4, "entropy": 0.1}
HUMANOID_PPO = {"epochs": 4, "minibatches": 2, "anneal": True}
HUMANOID_POLICY = {"state_embedding": None, "latent_embedding": None, "initialiser": "orthogonal", "squash": "sample"}
TRANSITION_REWARD = {"use_prev_state": True, "use_action": True}

RL2_POINT: Sections = {"policy": RECURRENT_POLICY, "encoder": {"latent": 128}}
RL2_ROOMS: Sections = {
    "policy": RECURRENT_POLICY | {"layers": (32,)},
    "ppo": {"discount": 0.98, "lambda_": 0.95, "clip": 0.05, "minibatches": 4, "entropy": 0.01},
    "encoder": {
        "latent": 32,
        "hidden": 64,
        "action_embedding": None,
        "state_embedding": 8,
        "reward_embedding": 8,
    },
    "recurrent": {"max_grad_norm": None},
}
RL2_HUMANOID: Sections = {
    "policy": RECURRENT_POLICY | HUMANOID_POLICY | {"layers": (128, 128), "relu_latent": False},
    "ppo": HUMANOID_PPO | {"reward_clip": None},
    "encoder": {"latent": 128},
    "recurrent": {"learning_rate": 1e-3, "max_grad_norm": 1.0},
}
VARIBAD_POINT: Sections = {
    "policy": {"squash": "mean"},
    "ppo": {"reward_clip": 1e5},
    "vae": TRANSITION_REWARD | {"detach_every": 50},
    "vae_training": {"batch": 10},
}
VARIBAD_ROOMS: Sections = {
    "policy": {"layers": (64,), "state_embedding": 32, "latent_embedding": 32},
    "ppo": ROOMS_PPO,
    "encoder": {"latent": 10, "action_embedding": None, "reward_embedding": 8},
    "vae": {"reward_layers": (64, 64), "kl_scale": 0.1, "subsample_rows": None, "subsample_transitions": None},
    "vae_training": {"batch": 25, "updates": 1, "capacity": 100_000},
}
VARIBAD_REACHER: Sections = {
    "policy": {"squash": "mean"},
    "ppo": {"learning_rate": 3e-4, "anneal": True},
    "encoder": {"latent": 10, "action_embedding": 32, "state_embedding": 64, "reward_embedding": 32},
    "vae": TRANSITION_REWARD
    | {"state_embedding": 64, "action_embedding": 32, "average_rows": True, "detach_every": 200},
    "vae_training": {"batch": 10, "updates": 10, "prefill": 50_000},
}
VARIBAD_HUMANOID: Sections = {
    "policy": HUMANOID_POLICY | {"layers": (512, 256), "normalise_latent": False},
    "ppo": HUMANOID_PPO,
    "encoder": {"latent": 10},
    "vae": TRANSITION_REWARD | {"kl_scale": 0.1, "subsample_rows": 100, "subsample_transitions": 100},
    "vae_training": {"batch": 10, "updates": 10, "max_grad_norm": 1.0},
}
ROOMS_BONUS = {"hyperstate_scale": 10.0, "vae_error_scale": 1.0, "clip": 10.0}
ANT_BONUS = {"hyperstate_scale": 0.01, "vae_error_scale": 0.01, "clip": 10.0}
POSITION = {"state_entries": (0, 1)}
HYPERX_POINT: Sections = VARIBAD_POINT | {"vae": TRANSITION_REWARD}

PAPER: dict[str, dict[str, Sections]] = {
    "rl2": {
        "halfcircle": RL2_POINT | {"run": {"steps": 10_000_000}},
        "point-wind": RL2_POINT | {"run": {"steps": 20_000_000}},
        "escape-room": RL2_POINT | {"run": {"steps": 20_000_000}},
        "rooms": RL2_ROOMS | {"run": {"steps": 100_000_000, "eval_tasks": 100}},
        "reacher": RL2_POINT | {"run": {"steps": 150_000_000}},
        "humanoid-dir": RL2_HUMANOID | {"run": {"steps": 100_000_000}},
    },
    "varibad": {
        "halfcircle": VARIBAD_POINT | {"run": {"steps": 10_000_000}},
        "point-wind": VARIBAD_POINT | {"run": {"steps": 20_000_000}},
        "escape-room": VARIBAD_POINT | {"run": {"steps": 20_000_000}},
        "rooms": VARIBAD_ROOMS | {"run": {"steps": 100_000_000, "eval_tasks": 100}},
        "reacher": VARIBAD_REACHER | {"run": {"steps": 150_000_000}},
        "humanoid-dir": VARIBAD_HUMANOID | {"run": {"steps": 100_000_000}},
    },
    "hyperx": {
        "halfcircle": HYPERX_POINT | {"run": {"steps": 15_000_000}},
        "point-wind": HYPERX_POINT | {"run": {"steps": 20_000_000}},
        "escape-room": HYPERX_POINT | {"run": {"steps": 20_000_000}},
        "rooms": VARIBAD_ROOMS | {"bonus": ROOMS_BONUS, "run": {"steps": 100_000_000, "eval_tasks": 100}},
        "reacher": VARIBAD_REACHER | {"bonus": ANT_BONUS | POSITION, "run": {"steps": 150_000_000}},
        "humanoid-dir": VARIBAD_HUMANOID | {"bonus": ANT_BONUS, "run": {"steps": 100_000_000}},
    },
}


def baseline_preset(algorithm: str, env: MetaEnvironment, size: str) -> BaselineConfig:
    """The configuration of "rl2", "varibad" or "hyperx" on an environment, `size` "paper", "small", "fast" or "debug".

    Raises ConfigError for an unknown algorithm.
    """
    if algorithm not in CONFIGS:
        raise ConfigError(f"Unknown algorithm {algorithm!r}: choose one of {', '.join(CONFIGS)}.")
    config = fit(with_sections(CONFIGS[algorithm](), paper_sections(algorithm, env)), env)
    if size in LANES:
        return small_config(config, env, LANES[size])
    return debug_config(config, env) if size == "debug" else config


def paper_sections(algorithm: str, env: MetaEnvironment) -> Sections:
    """The row of the table for an environment such as "rooms-4"."""
    table = PAPER[algorithm]
    other = "rooms" if hasattr(env.action_space, "n") else "halfcircle"
    return table.get(env.name) or table.get(env.name.rpartition("-")[0]) or table[other]


def fit(config: BaselineConfig, env: MetaEnvironment) -> BaselineConfig:
    """Clips to the meta-episode what exceeds it, bounds the replay's memory and evaluates up to a hundred times."""
    run = config.run
    every = max(RunConfig().eval_every, run.steps // (100 * env.num_steps))
    sections: Sections = {"run": {"eval_every": every}}
    if not isinstance(config, RL2Config):
        cut = config.vae.detach_every
        sections["vae"] = {"detach_every": cut if cut is None else min(cut, env.num_steps)}
        sections["vae_training"] = {"capacity": min(config.vae_training.capacity, 3_000_000 // env.num_steps)}
    return with_sections(config, sections)


def small_config(config: BaselineConfig, env: MetaEnvironment, lanes: int) -> BaselineConfig:
    """More lanes, smaller networks and fewer reconstructions: sizes small, for two CPU cores, and fast.

    Four times the lanes would leave the autoencoder a quarter of its updates for the same steps, and on HalfCircle
    more of them raised the return (docs/results.md): a round makes 20, and as many of HyperX's predictors.
    """
    policy = {"layers": tuple(min(width, 64) for width in config.policy.layers[:2])}
    encoder = {"hidden": min(config.encoder.hidden, 64), "latent": min(config.encoder.latent, 64)}
    vae = {"subsample_rows": 25, "subsample_transitions": 25}
    sections: Sections = {
        "policy": policy,
        "encoder": encoder,
        "vae": vae,
        "vae_training": {"updates": 20},
        "bonus": {"layers": (64, 64), "outputs": 32, "updates": 20},
        "collect": {"lanes": lanes},
        "run": {"steps": min(config.run.steps, 10_000_000)},
    }
    return fit(with_sections(config, sections), env)


def debug_config(config: BaselineConfig, env: MetaEnvironment) -> BaselineConfig:
    """A tiny configuration that runs in seconds."""
    lanes = 4
    round_steps = lanes * env.num_steps
    tiny: Sections = {
        "policy": {"layers": (8,)},
        "ppo": {"epochs": 2, "minibatches": 2},
        "encoder": {"latent": 2, "hidden": 8, "state_embedding": 4, "reward_embedding": 4},
        "vae": {"reward_layers": (8,), "state_layers": (8,), "subsample_rows": 4, "subsample_transitions": 4},
        "vae_training": {"batch": 2, "updates": 2, "capacity": 4 * lanes, "prefill": round_steps},
        "bonus": {"layers": (8,), "outputs": 4, "embedding": 4, "batch": 2, "samples": 2},
        "collect": {"lanes": lanes},
    }
    run = RunConfig(steps=6 * round_steps, eval_every=2 * lanes, eval_tasks=4, test_tasks=8)
    return replace(with_sections(config, tiny), run=run)
