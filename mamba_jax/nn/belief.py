"""Networks of VariBAD's variational autoencoder: a GRU that turns a history into a Gaussian belief, and decoders."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mamba_jax.nn.linear import MLP, JointLinear, Linear

Pick = Callable[[jax.Array], jax.Array]


class Belief(NamedTuple):
    """A diagonal Gaussian over the task's latent and the memory it came from.

    mean, logvar: (..., L). hidden: (..., H), the GRU's state.
    """

    mean: jax.Array
    logvar: jax.Array
    hidden: jax.Array


class Encoder(nn.Module):
    """History -> belief: embedded (action, state, reward), layers, GRU, layers, linear heads.

    latent: L. hidden: H. action_embedding: None leaves actions out. layers_before, layers_after: widths of the ReLU
    layers around the GRU.
    """

    latent: int
    hidden: int
    action_embedding: int | None
    state_embedding: int
    reward_embedding: int
    layers_before: Sequence[int] = ()
    layers_after: Sequence[int] = ()

    def setup(self):
        if self.action_embedding is not None:
            self.action_encoder = Linear(self.action_embedding)
        self.state_encoder = Linear(self.state_embedding)
        self.reward_encoder = Linear(self.reward_embedding)
        self.before = [Linear(width) for width in self.layers_before]
        self.gru = GRU(self.hidden)
        self.after = [Linear(width) for width in self.layers_after]
        self.mean = Linear(self.latent)
        self.logvar = Linear(self.latent)

    def __call__(
        self,
        hidden: jax.Array,
        actions: jax.Array,
        states: jax.Array,
        rewards: jax.Array,
        first: jax.Array,
        feed_first: bool = False,
        detach_every: int | None = None,
    ) -> Belief:
        """Beliefs after each of T transitions.

        hidden: (B, H) before the first. actions: (T, B, A), states: (T, B, S) reached, rewards: (T, B).
        first: (T, B) bool, where the hidden state is zeroed before the transition; the transition itself is then fed
        in if `feed_first`, else it is left out and the belief is the prior.
        detach_every: no gradient flows back over every so many transitions (truncated backpropagation through time).
        """
        inputs = [self.state_encoder(states), self.reward_encoder(rewards[..., None])]
        if self.action_embedding is not None:
            inputs.insert(0, self.action_encoder(actions))
        x = jax.nn.relu(jnp.concatenate(inputs, -1))
        for layer in self.before:
            x = jax.nn.relu(layer(x))
        return self.heads(self.gru(hidden, x, first, feed_first, detach_every))

    def heads(self, hidden: jax.Array) -> Belief:
        """Belief (..., L) of hidden states (..., H); zeros give the prior."""
        x = hidden
        for layer in self.after:
            x = jax.nn.relu(layer(x))
        return Belief(self.mean(x), self.logvar(x), hidden)


class GRU(nn.Module):
    """Gated recurrent unit in PyTorch's form: both biases, reset gate after the hidden matrix."""

    hidden: int

    @nn.compact
    def __call__(
        self, hidden: jax.Array, inputs: jax.Array, first: jax.Array, feed_first: bool, detach_every: int | None
    ) -> jax.Array:
        """hidden (B, H), inputs (T, B, X), first (T, B) -> hidden states (T, B, H); see `Encoder`."""
        orthogonal, zeros = nn.initializers.orthogonal(), nn.initializers.zeros_init()
        width = 3 * self.hidden
        kernel = self.param("input_kernel", orthogonal, (inputs.shape[-1], width))
        recurrent = self.param("hidden_kernel", orthogonal, (self.hidden, width))
        bias = self.param("input_bias", zeros, (width,))
        recurrent_bias = self.param("hidden_bias", zeros, (width,))
        projected = inputs @ kernel + bias
        cut = jnp.arange(len(inputs)) % (detach_every or len(inputs)) == 0

        def step(h: jax.Array, row: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            x, kept, cut_here = row
            if detach_every is not None:
                h = jnp.where(cut_here, jax.lax.stop_gradient(h), h)
            h = h * kept
            reset, gate, candidate = jnp.split(x, 3, -1)
            own_reset, own_gate, own_candidate = jnp.split(h @ recurrent + recurrent_bias, 3, -1)
            gate = jax.nn.sigmoid(gate + own_gate)
            candidate = jnp.tanh(candidate + jax.nn.sigmoid(reset + own_reset) * own_candidate)
            h = (1 - gate) * candidate + gate * h
            h = h if feed_first else h * kept
            return h, h

        kept = 1 - first[..., None].astype(inputs.dtype)
        return jax.lax.scan(step, hidden, (projected, kept, cut))[1]


class RewardDecoder(nn.Module):
    """(latent, next state, and optionally action and previous state) -> reward, by regression.

    layers: ReLU layers. state_embedding, action_embedding: widths of the embeddings of the inputs.
    """

    layers: Sequence[int]
    state_embedding: int
    action_embedding: int
    use_prev_state: bool
    use_action: bool

    @nn.compact
    def __call__(
        self, latent: jax.Array, prev_state: jax.Array, action: jax.Array, next_state: jax.Array, pick: Pick
    ) -> jax.Array:
        """latent (..., L); transitions (T, B, .); `pick` broadcasts (T, B, F) against the latent -> rewards (...)."""
        state_encoder = Linear(self.state_embedding, name="state_encoder")
        context = [jax.nn.relu(state_encoder(next_state))]
        if self.use_action:
            context.append(jax.nn.relu(Linear(self.action_embedding, name="action_encoder")(action)))
        if self.use_prev_state:
            context.append(jax.nn.relu(state_encoder(prev_state)))
        return Trunk(self.layers, 1, name="trunk")(latent, jnp.concatenate(context, -1), pick)[..., 0]


class StateDecoder(nn.Module):
    """(latent, previous state, action) -> next state."""

    layers: Sequence[int]
    state_embedding: int
    action_embedding: int

    @nn.compact
    def __call__(self, latent: jax.Array, prev_state: jax.Array, action: jax.Array, pick: Pick) -> jax.Array:
        """Arguments as for `RewardDecoder`; returns states (..., S)."""
        state = jax.nn.relu(Linear(self.state_embedding, name="state_encoder")(prev_state))
        action = jax.nn.relu(Linear(self.action_embedding, name="action_encoder")(action))
        trunk = Trunk(self.layers, prev_state.shape[-1], name="trunk")
        return trunk(latent, jnp.concatenate([state, action], -1), pick)


class CellRewardDecoder(nn.Module):
    """latent -> logits of reward 1 in each cell of a grid world ("multi-head").

    cells: number of cells. kind: "bernoulli" (a sigmoid for each cell) or "categorical" (a softmax over cells).
    """

    layers: Sequence[int]
    cells: int
    kind: Literal["bernoulli", "categorical"]

    @nn.compact
    def __call__(self, latent: jax.Array) -> jax.Array:
        """(..., L) -> (..., cells)."""
        return MLP(self.layers, self.cells, name="mlp")(latent)

    def log_probs(self, logits: jax.Array, cell: jax.Array) -> tuple[jax.Array, jax.Array]:
        """log p and log(1 - p) of reward 1 in the cell, (...); logits (..., cells) broadcast against cell (...)."""
        if self.kind == "bernoulli":
            chosen = jnp.take_along_axis(logits, cell[..., None], -1)[..., 0]
            return jax.nn.log_sigmoid(chosen), jax.nn.log_sigmoid(-chosen)
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), cell[..., None], -1)[..., 0]
        return log_prob, jnp.log1p(-jnp.exp(jnp.minimum(log_prob, -1e-7)))


class Trunk(nn.Module):
    """ReLU layers and a linear output over [latent, context], for many pairs of a latent and a transition."""

    layers: Sequence[int]
    features: int

    @nn.compact
    def __call__(self, latent: jax.Array, context: jax.Array, pick: Pick) -> jax.Array:
        """latent (..., L), context (T, B, F) -> (..., features)."""
        first, *rest = *self.layers, self.features
        x = JointLinear(first, name="joint")(latent, context, pick)
        if not rest:
            return x
        return MLP(rest[:-1], rest[-1], name="mlp")(jax.nn.relu(x))
