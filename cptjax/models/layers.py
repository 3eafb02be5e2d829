"""What a decoder layer is made of: attention and the MLP, and where they stand around the residual stream.

Every module declares its weights for a whole stack of layers ([layers, ...]) and computes with one slice of it.
"""

from collections.abc import Callable

import jax
from flax import nnx

from cptjax.models.activations import ACTIVATIONS
from cptjax.models.config import DecoderConfig
from cptjax.models.experts import Mixture, Tally, unseen
from cptjax.models.norms import Norm, stream_norm
from cptjax.models.numerics import Numerics
from cptjax.models.products import Projection, residual_gain
from cptjax.models.rope import Rotary, rotate
from cptjax.sharding.rules import constrain, stream_is_cut

# (query, key, value, window) -> what each query reads, all [batch, length, heads, head_dim], rotary angles applied. Whose
# tokens a query may see is the caller's: those of its document in a row, or those a cache remembers.
Attend = Callable[[jax.Array, jax.Array, jax.Array, int | None], jax.Array]


class Attention(nnx.Module):
    """Grouped-query attention, of turned queries and keys where positions are rotary."""

    def __init__(self, config: DecoderConfig, window: int | None, stack: int, rngs: nnx.Rngs):
        hidden, head = ("hidden", config.hidden), (None, config.head_dim)
        heads, kv_heads = ("heads", config.heads), ("kv_heads", config.kv_heads)
        biased = config.query_key_value_bias
        self.window = window
        self.query = Projection([hidden], [heads, head], biased, stack, rngs)
        self.key = Projection([hidden], [kv_heads, head], biased, stack, rngs)
        self.value = Projection([hidden], [kv_heads, head], biased, stack, rngs)
        self.output = Projection([heads, head], [hidden], config.output_bias, stack, rngs, gain=residual_gain(config))
        normed, whole = config.query_key_norm is not None, config.query_key_norm == "projection"
        self.query_norm = Norm(config, [heads, head] if whole else [head], stack, rngs) if normed else None
        self.key_norm = Norm(config, [kv_heads, head] if whole else [head], stack, rngs) if normed else None

    def __call__(self, x: jax.Array, rotary: Rotary | None, attend: Attend, numerics: Numerics) -> jax.Array:
        """[batch, length, hidden] -> the same shape."""
        query = constrain(self.query(x, numerics), "batch", "sequence", "heads", None)
        key = constrain(self.key(x, numerics), "batch", "sequence", "kv_heads", None)
        value = constrain(self.value(x, numerics), "batch", "sequence", "kv_heads", None)
        if self.query_norm is not None:
            query, key = self.query_norm(query, numerics), self.key_norm(key, numerics)
        mixed = attend(rotate(query, rotary), rotate(key, rotary), value, self.window)
        return self.output(constrain(mixed, "batch", "sequence", "heads", None), numerics)


class MLP(nnx.Module):
    """down(activation(gate(x)) * up(x)) (arXiv 2002.05202), or without a gate down(activation(up(x)))."""

    def __init__(self, config: DecoderConfig, stack: int, rngs: nnx.Rngs):
        hidden, mlp, biased = ("hidden", config.hidden), ("mlp", config.mlp), config.mlp_bias
        self.activation = config.activation
        self.gate = Projection([hidden], [mlp], biased, stack, rngs) if config.gated_mlp else None
        self.up = Projection([hidden], [mlp], biased, stack, rngs)
        self.down = Projection([mlp], [hidden], biased, stack, rngs, gain=residual_gain(config))

    def __call__(self, x: jax.Array, numerics: Numerics, tally: Tally = unseen) -> jax.Array:
        """[batch, length, hidden] -> the same shape. There is no router for `tally` to see."""
        activation = ACTIVATIONS[self.activation]
        if self.gate is None:
            return self.down(activation(constrain(self.up(x, numerics), "batch", "sequence", "mlp")), numerics)
        gate = constrain(self.gate(x, numerics), "batch", "sequence", "mlp")
        up = constrain(self.up(x, numerics), "batch", "sequence", "mlp")
        return self.down(activation(gate) * up, numerics)


class Layer(nnx.Module):
    """Attention, then the MLP (or `mixed` experts), each added to the residual stream; norms where `norm_placement` says.

    Where a mesh cuts heads and channels (`tensor`), it cuts the stream's sequence between them (arXiv 2205.05198, section 4.2.2):
    a block's input is gathered, its result scattered as it is summed, and a device adds and norms its own tokens.
    """

    def __init__(self, config: DecoderConfig, window: int | None, mixed: bool, stack: int, rngs: nnx.Rngs):
        before = config.norm_placement in ("before", "both")
        after = config.norm_placement != "before"
        self.parallel, self.of_sum = config.parallel_residual, config.norm_placement == "sum"
        self.attention_norm = stream_norm(config, stack, rngs) if before else None
        self.attention = Attention(config, window, stack, rngs)
        self.attention_post_norm = stream_norm(config, stack, rngs) if after else None
        self.mlp_norm = stream_norm(config, stack, rngs) if before else None
        self.mlp = Mixture(config, stack, rngs) if mixed else MLP(config, stack, rngs)
        self.mlp_post_norm = stream_norm(config, stack, rngs) if after else None

    def __call__(
        self, x: jax.Array, rotary: Rotary | None, attend: Attend, numerics: Numerics, tally: Tally = unseen
    ) -> jax.Array:
        """[batch, length, hidden] -> the same shape: the residual stream, in the compute dtype.

        tally: what sees how a router chooses.
        """
        attended = self.attention(_entering(self.attention_norm, x, numerics), rotary, attend, numerics)
        if self.parallel:
            return _of_stream(x + (attended + self.mlp(_entering(self.mlp_norm, x, numerics), numerics, tally)))
        x = self._added(x, attended, self.attention_post_norm, numerics)
        transformed = self.mlp(_entering(self.mlp_norm, x, numerics), numerics, tally)
        return self._added(x, transformed, self.mlp_post_norm, numerics)

    def _added(self, x: jax.Array, result: jax.Array, norm: Norm | None, numerics: Numerics) -> jax.Array:
        """The residual stream with a block's result."""
        if stream_is_cut():
            result = _of_stream(result)
        return _of_stream(_normed(norm, x + result, numerics) if self.of_sum else x + _normed(norm, result, numerics))


def _of_stream(x: jax.Array) -> jax.Array:
    return constrain(x, "batch", "stream", None)


def _entering(norm: Norm | None, x: jax.Array, numerics: Numerics) -> jax.Array:
    """A block's input: the stream, normed where it is cut, then whole for each head and channel."""
    x = _normed(norm, x, numerics)
    return constrain(_of_stream(x), "batch", "sequence", None) if stream_is_cut() else x


def _normed(norm: Norm | None, x: jax.Array, numerics: Numerics) -> jax.Array:
    return x if norm is None else norm(x, numerics)
