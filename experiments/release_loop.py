"""Training speed of RL2 and VariBAD beside their releases' loop: `python experiments/release_loop.py [--out FILE]`.

The releases are no part of this project. What an iteration of theirs does on HalfCircle (16 processes behind pipes,
PyTorch, sizes of the sparse point robot's configuration) is done here once more, without normalisers, logging, storage
and gym's wrappers, so that the figures are estimates from above of how fast they can be. Both sides run in turn on the
same CPUs; of three repeats the slowest counts. Needs PyTorch, which nothing else here does: `pip install torch`.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from runtime import Parser, UsageError, one_sentence_errors, run_script, set_environment

PROCESSES, SUB_EPISODES, LENGTH = 16, 3, 100
GRU, EPOCHS, MINIBATCHES, CLIP = 128, 2, 8, 0.1
VAE_UPDATES, VAE_TRAJECTORIES = 3, 15
ROLLOUTS = {"rl2": 600, "varibad": 200}
"""Steps of every process in an iteration."""

LATENTS = {"rl2": 128, "varibad": 5}
REPEATS = 3


class Task:
    """HalfCircle in NumPy, observed with the flag that ends a sub-episode: (3,) float32."""

    def __init__(self, random: np.random.Generator):
        self.random = random
        self.reset()

    def reset(self) -> np.ndarray:
        """Another goal, uniform on the upper half of the unit circle; the robot at the origin."""
        angle = self.random.uniform(0, np.pi)
        self.goal, self.position, self.time = np.array([np.cos(angle), np.sin(angle)]), np.zeros(2), 0
        return self.observe()

    def observe(self) -> np.ndarray:
        """Position and flag."""
        ended = self.time > 0 and self.time % LENGTH == 0
        return np.append(self.position, ended).astype(np.float32)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """(observation, reward, whether the meta-episode is over); a sub-episode's end is shown where it ended."""
        if self.time > 0 and self.time % LENGTH == 0:
            self.position = np.zeros(2)
        self.position = self.position + 0.1 * np.clip(action, -1, 1)
        self.time += 1
        distance = float(np.linalg.norm(self.position - self.goal))
        return self.observe(), 1 - distance if distance <= 0.2 else 0.0, self.time == SUB_EPISODES * LENGTH


class Steps(NamedTuple):
    """What the processes return: observation (16, 3), reward (16, 1), done (16,)."""

    observation: np.ndarray
    reward: np.ndarray
    done: np.ndarray


class Workers:
    """One process for every task, behind a pipe, as the releases have them."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        pairs = [context.Pipe() for _ in range(PROCESSES)]
        self.pipes = [ours for ours, _ in pairs]
        self.processes = [context.Process(target=serve, args=(pair[1], i)) for i, pair in enumerate(pairs)]
        for process in self.processes:
            process.start()

    def step(self, actions: np.ndarray) -> Steps:
        """One step of all of them, actions (16, 2); finished tasks begin anew."""
        for pipe, action in zip(self.pipes, actions, strict=True):
            pipe.send(action)
        observation, reward, done = zip(*(pipe.recv() for pipe in self.pipes), strict=True)
        return Steps(np.stack(observation), np.array(reward, np.float32)[:, None], np.array(done))

    def close(self) -> None:
        """Ends the processes."""
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()


def serve(pipe: Connection, seed: int) -> None:
    """Steps a task with the actions that come, until None comes."""
    task = Task(np.random.default_rng(seed))
    while (action := pipe.recv()) is not None:
        observation, reward, done = task.step(action)
        pipe.send((task.reset() if done else observation, reward, done))


def stack(*sizes: int, activation: Any, last: bool = True) -> Any:
    """Linear layers of these widths with an activation behind each, behind the last only where `last`."""
    from torch import nn

    layers: list[Any] = []
    for size, width in itertools.pairwise(sizes):
        layers += [nn.Linear(size, width), activation()]
    return nn.Sequential(*(layers if last else layers[:-1]))


class Encoder:
    """Embeddings of action, observation and reward, a GRU, and heads for mean and log-variance of the belief."""

    def __init__(self, latent: int):
        from torch import nn

        self.embed = [stack(size, width, activation=nn.ReLU) for size, width in ((2, 16), (3, 32), (1, 16))]
        self.gru, self.heads = nn.GRU(64, GRU), [nn.Linear(GRU, latent), nn.Linear(GRU, latent)]

    def parameters(self) -> list[Any]:
        """Of all layers."""
        return [p for module in (*self.embed, self.gru, *self.heads) for p in module.parameters()]

    def __call__(self, rows: tuple[Any, Any, Any], hidden: Any) -> tuple[Any, Any]:
        """Rows (T, B, ...) of actions, observations and rewards, hidden (1, B, 128) -> beliefs (T, B, 2 L), hidden."""
        import torch

        x = torch.cat([embed(row) for embed, row in zip(self.embed, rows, strict=True)], -1)
        x, hidden = self.gru(x, hidden)
        return torch.cat([head(x) for head in self.heads], -1), hidden


class Loop:
    """One iteration of a release: collection, then PPO, for VariBAD then the autoencoder too."""

    def __init__(self, algo: str, workers: Workers):
        import torch
        from torch import nn

        self.algo, self.workers, self.steps, self.latent = algo, workers, ROLLOUTS[algo], LATENTS[algo]
        self.encoder = Encoder(self.latent)
        self.embed = [stack(size, 64, activation=nn.Tanh) for size in (3, 2 * self.latent)]
        widths = (2 * self.latent, 128) if algo == "rl2" else (128, 128, 128, 128)
        self.actor, self.critic = (
            nn.Sequential(stack(*widths, activation=nn.Tanh), nn.Linear(128, size)) for size in (2, 1)
        )
        self.log_std = nn.Parameter(torch.zeros(2))
        self.decoder_embed = [stack(size, width, activation=nn.ReLU) for size, width in ((3, 32), (3, 32), (2, 16))]
        self.decoder = stack(self.latent + 80, 64, 32, 1, activation=nn.ReLU, last=False)
        policy = [*self.actor.parameters(), *self.critic.parameters(), self.log_std]
        policy += [p for module in self.embed for p in module.parameters()] if algo == "varibad" else []
        decoder = [p for module in (*self.decoder_embed, self.decoder) for p in module.parameters()]
        self.policy_adam = torch.optim.Adam(policy, 7e-4)
        self.vae_adam = torch.optim.Adam(self.encoder.parameters() + (decoder if algo == "varibad" else []), 1e-3)
        self.observation = torch.zeros(PROCESSES, 3)

    def policy(self, observation: Any, belief: Any) -> tuple[Any, Any]:
        """Observations (..., 3) and beliefs (..., 2 L) -> the distribution of actions and values (..., 1)."""
        import torch

        if self.algo == "rl2":
            x = torch.relu(belief)
        else:
            x = torch.cat([self.embed[0](observation), self.embed[1](belief)], -1)
        return torch.distributions.Normal(self.actor(x), self.log_std.exp()), self.critic(x)

    def run(self) -> None:
        """The iteration."""
        import torch

        with torch.no_grad():
            rows, beliefs, log_probs, values = self.collect()
        samples = [torch.randperm(self.steps * PROCESSES).chunk(MINIBATCHES) for _ in range(EPOCHS)]
        for index in (index for epoch in samples for index in epoch):
            self.ppo_update(rows, self.encode(rows) if self.algo == "rl2" else beliefs, log_probs, values, index)
        if self.algo == "varibad":
            for _ in range(VAE_UPDATES):
                self.vae_update()

    def collect(self) -> tuple[tuple[Any, Any, Any], Any, Any, Any]:
        """Rows (T, 16, ...), and belief, log-probability and value at each."""
        import torch

        hidden, belief = torch.zeros(1, PROCESSES, GRU), torch.zeros(PROCESSES, 2 * self.latent)
        found: list[tuple[Any, ...]] = []
        for _ in range(self.steps):
            distribution, value = self.policy(self.observation, belief)
            action = distribution.sample()
            steps = self.workers.step(action.numpy())
            seen, reward = torch.from_numpy(steps.observation), torch.from_numpy(steps.reward)
            hidden = hidden * torch.from_numpy(~steps.done).float()[:, None]
            found.append((action, self.observation, reward, belief, distribution.log_prob(action).sum(-1), value))
            encoded, hidden = self.encoder((action[None], seen[None], reward[None]), hidden)
            belief, self.observation = encoded[0], seen
        action, seen, reward, belief, log_prob, value = (torch.stack(x) for x in zip(*found, strict=True))
        return (action, seen, reward), belief, log_prob, value

    def encode(self, rows: tuple[Any, Any, Any]) -> Any:
        """Beliefs (T, 16, 2 L) of a rollout, step by step with gradient, as RL2's release does for every minibatch."""
        import torch

        hidden, beliefs = torch.zeros(1, PROCESSES, GRU), []
        for step in zip(*rows, strict=True):
            belief, hidden = self.encoder(tuple(x[None] for x in step), hidden)  # type: ignore[arg-type]
            beliefs.append(belief)
        return torch.cat(beliefs)

    def ppo_update(self, rows: tuple[Any, Any, Any], beliefs: Any, log_probs: Any, values: Any, index: Any) -> None:
        """One minibatch of PPO; the reward stands in for the advantage, which costs nothing to compute."""
        import torch
        from torch.nn.functional import huber_loss

        action, seen, reward = (x.flatten(0, 1)[index] for x in rows)
        distribution, value = self.policy(seen, beliefs.flatten(0, 1)[index])
        ratio = torch.exp(distribution.log_prob(action).sum(-1) - log_probs.flatten()[index])[:, None]
        surrogate = torch.min(ratio * reward, ratio.clamp(1 - CLIP, 1 + CLIP) * reward).mean()
        old = values.flatten(0, 1)[index]
        clipped = old + (value - old).clamp(-CLIP, CLIP)
        error = torch.max(huber_loss(value, reward, reduction="none"), huber_loss(clipped, reward, reduction="none"))
        self.descend(0.25 * error.mean() - surrogate - 1e-3 * distribution.entropy().mean(), self.algo == "rl2")

    def descend(self, loss: Any, both: bool) -> None:
        """A step of the policy's Adam and, where `both`, of the encoder's."""
        import torch

        optimizers = [self.policy_adam, self.vae_adam] if both else [self.policy_adam]
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 0.5)
            optimizer.step()

    def vae_update(self) -> None:
        """Rewards of whole trajectories, decoded from the belief of every step in them."""
        import torch

        length = SUB_EPISODES * LENGTH
        action, seen, reward = (torch.randn(length, VAE_TRAJECTORIES, size) for size in (2, 3, 1))
        beliefs, _ = self.encoder((action, seen, reward), torch.zeros(1, VAE_TRAJECTORIES, GRU))
        mean, log_variance = beliefs.chunk(2, -1)
        latent = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        given = torch.cat([embed(x) for embed, x in zip(self.decoder_embed, (seen, seen, action), strict=True)], -1)
        pairs = (length, length, VAE_TRAJECTORIES)
        inputs = torch.cat([latent[:, None].expand(*pairs, -1), given[None].expand(*pairs, -1)], -1)
        error = (self.decoder(inputs) - reward).square().sum((0, 1)).mean()
        self.vae_adam.zero_grad()
        (error + (mean.square() + log_variance.exp() - log_variance).sum((0, 2)).mean()).backward()
        self.vae_adam.step()


def main(words: list[str]) -> int:
    """Runs a command line; returns the exit code."""
    set_environment()
    with one_sentence_errors("release_loop.py", {ValueError: 2, OSError: 2}):
        options = parser().parse_args(words)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.touch()
        lines = []
        for figures in compare():
            lines.append(json.dumps(figures))
            print(lines[-1], flush=True)
        if options.out:
            options.out.write_text("\n".join(lines) + "\n")
    return 0


def parser() -> Parser:
    """The command line."""
    found = Parser(prog="release_loop.py", description="Compare training speed with an estimate of the releases'.")
    found.add_argument("--out", type=Path, help="file that gets the same lines")
    return found


def compare() -> Iterator[dict[str, Any]]:
    """Environment steps per second of whole training steps, ours at sizes small and paper, and the releases' loop's."""
    try:
        import torch
    except ImportError:
        raise UsageError("PyTorch is missing: install it with `pip install torch`.") from None
    from benchmark import hardware, seconds, training_round

    workers = Workers()
    try:
        for algo in ROLLOUTS:
            loop = Loop(algo, workers)
            loop.run()  # the first iteration is slower
            theirs = ROLLOUTS[algo] * PROCESSES / max(seconds(loop.run) for _ in range(REPEATS))
            small, paper = (training_round(algo, size)["steps_per_s"] for size in ("small", "paper"))
            yield {
                "part": "loop", "env": "halfcircle", "algo": algo, "release_estimate": round(theirs),
                "steps_per_s_small": small, "ratio_small": round(small / theirs, 1),
                "steps_per_s_paper": paper, "ratio_paper": round(paper / theirs, 1),
                "torch": torch.__version__,
            } | hardware()  # fmt: skip
    finally:
        workers.close()


if __name__ == "__main__":
    run_script(main)
