"""Trained agents from the folders of their runs."""

from pathlib import Path
from typing import Any

import jax

from mamba_jax.algos.registry import make
from mamba_jax.policy import from_arrays, policy_of_seed
from mamba_jax.presets import default_config
from mamba_jax.progress import Reporter
from mamba_jax.run import Run, make_run
from mamba_jax.run_folder import RunFolder, fill_config
from mamba_jax.run_state import load_policy
from mamba_jax.types import Algorithm, MetaEnvironment


def load(folder: Path | str, env: MetaEnvironment, *, which: str = "best", seed: int = 0) -> tuple[Algorithm, Any]:
    """The algorithm of a run and a state with its policy, to evaluate or to act with: replay and optimisers are zero.

    env: the meta-environment that the run was made for. which: "best" or "last". seed: index among the seeds of a run
    that trained several. Raises ValueError where the folder is no run's or does not fit, CheckpointError where its
    checkpoint is missing or damaged.
    """
    if which not in ("best", "last"):
        raise ValueError(f"Unknown policy {which!r}: choose best or last.")
    run = open_run(RunFolder(Path(folder)), env, Reporter())
    if not 0 <= seed < run.num_seeds:
        raise ValueError(f"{folder} has no seed of index {seed}: choose one below {run.num_seeds}.")
    policy, _ = load_policy(run, which)
    if run.num_seeds > 1:
        policy = policy_of_seed(policy, seed)
    return run.single, from_arrays(jax.eval_shape(run.single.init, jax.random.key(0)), policy)


def open_run(folder: RunFolder, env: MetaEnvironment, reporter: Reporter) -> Run:
    """The run that a folder describes, on its meta-environment. Raises ValueError."""
    description = folder.read_config()
    for name, there in description["environment"].items():
        if there != (here := getattr(env, name, None)):
            what = {"name": "environment", "subtasks": "number of sub-tasks"}.get(name, name.replace("_", "-"))
            raise ValueError(f"{folder.path} holds a run whose {what} is {there}: load it with that one, not {here}.")
    options = description["options"]
    if options["boundary"] != (here := getattr(env, "boundary", "reset")):
        there = options["boundary"]
        raise ValueError(f"{folder.path} holds a run whose boundary is {there}: load it with that one, not {here}.")
    config = fill_config(default_config(options["algo"]), description["config"])
    algo = make(options["algo"], env, config)
    return make_run(algo, folder, reporter, seed=options["seed"], num_seeds=options["seeds"])
