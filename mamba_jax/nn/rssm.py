"""Recurrent state-space model with a layer-normed GRU and discrete latents (DreamerV3, equations 1-3).

The latent state of B lanes is deter (B, D) and stoch (B, S K), S one-hot vectors of K classes flattened. Logits are
mixed with 1% of the uniform distribution, so what is called `log_probs` (..., S, K) is normalised.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from mamba_jax.nn.blocks import MLP, KernelBlock, SplitDense, hidden_init, layer_norm
from mamba_jax.ops import discrete


def rescale_action(action: jax.Array) -> jax.Array:
    """a / sg(max(1, |a|)) elementwise: actions outside [-1, 1] act as their sign, with gradient 1/|a|."""
    return action / jax.lax.stop_gradient(jnp.maximum(1.0, jnp.abs(action)))


class RSSM(nn.Module):
    """Parameters and single steps of the RSSM; `mamba_jax.world_model` scans them over time.

    deter: D. stoch: S. classes: K. hidden: width of the layers around the GRU. action_size, embed_size: input widths.
    unimix: share of the uniform distribution in every categorical. input_layers, output_layers: numbers of layers
    before and behind the GRU.
    """

    deter: int
    stoch: int
    classes: int
    hidden: int
    action_size: int
    embed_size: int
    unimix: float = 0.01
    input_layers: int = 1
    output_layers: int = 1

    def setup(self):
        self.initial_deter = self.param("initial_deter", nn.initializers.zeros, (self.deter,))
        self.input_block = KernelBlock(self.stoch * self.classes, self.action_size, self.hidden)
        self.input_mlp = MLP(self.input_layers - 1, self.hidden)
        self.gru_linear = SplitDense(self.hidden, self.deter, 3 * self.deter)
        self.gru_norm = layer_norm("gru_norm")
        self.prior_mlp = MLP(self.output_layers, self.hidden)
        self.prior_out = nn.Dense(self.stoch * self.classes, kernel_init=hidden_init)
        self.posterior_block = KernelBlock(self.deter, self.embed_size, self.hidden)
        self.posterior_mlp = MLP(self.output_layers - 1, self.hidden)
        self.posterior_out = nn.Dense(self.stoch * self.classes, kernel_init=hidden_init)

    def __call__(self, action: jax.Array, embed: jax.Array) -> jax.Array:
        """Touches every parameter; used to initialise them. action (B, A), embed (B, E) -> log_probs (B, S, K)."""
        deter, stoch = self.initial(action.shape[0])
        deter = self.advance(deter, stoch, self.project_action(action))
        return self.prior(deter) + self.posterior(deter, self.project_embed(embed))

    def initial(self, batch: int) -> tuple[jax.Array, jax.Array]:
        """Learned first state: deter = tanh(w), stoch = mode of the prior there; (B, D) and (B, S K)."""
        deter = jnp.tanh(self.initial_deter)
        stoch = discrete.mode(self.prior(deter)).reshape(-1)
        return jnp.tile(deter, (batch, 1)), jnp.tile(stoch, (batch, 1))

    def project_action(self, action: jax.Array) -> jax.Array:
        """Actions (..., A) -> their share of the input layer (..., hidden)."""
        return self.input_block.project(rescale_action(action))

    def project_embed(self, embed: jax.Array) -> jax.Array:
        """Embeddings (..., E) -> their share of the posterior's layer (..., hidden)."""
        return self.posterior_block.project(embed)

    def project_deter(self, deter: jax.Array) -> jax.Array:
        """h (..., D) -> its share of the GRU's gates before normalisation (..., 3 D)."""
        return self.gru_linear.project(deter)

    def advance(
        self, deter: jax.Array, stoch: jax.Array, projected_action: jax.Array, projected_deter: jax.Array | None = None
    ) -> jax.Array:
        """h' = GRU(h, [z, a]): (B, D), (B, S K), (B, hidden) -> (B, D); `project_deter(deter)` may be given."""
        x = self.input_mlp(self.input_block(stoch, projected_action))
        projected = self.project_deter(deter) if projected_deter is None else projected_deter
        gates = self.gru_norm(self.gru_linear(x, projected))
        reset, candidate, update = jnp.split(gates, 3, -1)
        update = nn.sigmoid(update - 1)
        return update * jnp.tanh(nn.sigmoid(reset) * candidate) + (1 - update) * deter

    def prior(self, deter: jax.Array) -> jax.Array:
        """log p(z | h): (..., D) -> (..., S, K)."""
        return self._log_probs(self.prior_out(self.prior_mlp(deter)))

    def posterior(self, deter: jax.Array, projected_embed: jax.Array) -> jax.Array:
        """log q(z | h, x): (..., D), (..., hidden) -> (..., S, K)."""
        return self._log_probs(self.posterior_out(self.posterior_mlp(self.posterior_block(deter, projected_embed))))

    def _log_probs(self, logits: jax.Array) -> jax.Array:
        return discrete.mix_uniform(logits.reshape(*logits.shape[:-1], self.stoch, self.classes), self.unimix)
