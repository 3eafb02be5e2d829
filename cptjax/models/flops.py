"""Floating-point operations of the matrix products, counted rather than estimated as 6ND (PROTOCOL.md 2)."""

from typing import NamedTuple

from cptjax.models.config import DecoderConfig


class FlopsPerToken(NamedTuple):
    """Operations per token of a row in the forward pass; a multiply and an add count two.

    Counted: the products with weights, the LM head (and projections to its width) included, and the two of attention,
    over the pairs of tokens that see each other (half of all when causal, fewer with a window). Of experts those count that
    a token is given to, and the router. Not counted: norms, rotary, softmax, the embedding's look-up, and anything recomputed.
    """

    projections: float
    attention: float
    mlp: float
    head: float

    @property
    def forward(self) -> float:
        """The forward pass."""
        return self.projections + self.attention + self.mlp + self.head

    @property
    def training(self) -> float:
        """Forward and backward: the gradient of a product is two products of its size."""
        return 3 * self.forward


def flops_per_token(config: DecoderConfig, length: int) -> FlopsPerToken:
    """Mean operations per token in rows of one document of `length` tokens (an upper bound for packed rows)."""
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    visible = sum(mean_visible(length, window) for window in config.windows) / len(config.windows)
    width = config.embedding_width
    one = 2.0 * config.hidden * (3 if config.gated_mlp else 2)  # of an MLP one wide
    mlps = [
        one * config.experts_per_token * config.expert_mlp + 2.0 * config.hidden * config.experts
        if mixed
        else one * config.mlp
        for mixed in config.mixed_layers
    ]
    return FlopsPerToken(
        projections=config.layers * 2.0 * config.hidden * (2 * queries + 2 * keys),
        attention=config.layers * 4.0 * queries * visible,
        mlp=config.layers * sum(mlps) / len(mlps),
        head=2.0
        * (config.hidden * config.vocabulary if width is None else width * (config.vocabulary + 2 * config.hidden)),
    )


def mean_visible(length: int, window: int | None) -> float:
    """How many tokens a token sees on average, itself included, in a causal row of `length`."""
    reach = length if window is None else min(window, length)
    # The first `reach` tokens see 1, 2, ..., reach; all later ones see reach.
    return reach * (length - (reach - 1) / 2) / length
