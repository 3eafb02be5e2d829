"""The ladder of Llama models of "Breaking Language Barriers" (arXiv 2407.02118, Table 4), for scaling laws of CPT."""

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig

# Millions of parameters, as the table calls each model: (hidden, FFN as printed, heads, layers).
LADDER = {
    49: (512, 3072, 8, 8),
    66: (576, 3584, 9, 9),
    86: (640, 3584, 10, 10),
    105: (640, 3584, 10, 13),
    125: (640, 3584, 10, 16),
    137: (768, 4608, 12, 12),
    166: (768, 4608, 12, 15),
    194: (768, 4608, 12, 18),
    208: (896, 5120, 14, 14),
    234: (896, 5120, 14, 16),
    259: (896, 5120, 14, 18),
    301: (1024, 5632, 16, 16),
    334: (1024, 5632, 16, 18),
    368: (1024, 5632, 16, 20),
    512: (1280, 7168, 10, 18),
    591: (1280, 7168, 10, 21),
    616: (1408, 7680, 11, 18),
    670: (1280, 7168, 10, 24),
    711: (1408, 7680, 11, 21),
    766: (1536, 8704, 12, 19),
    806: (1408, 7680, 11, 24),
    879: (1536, 8704, 12, 22),
    992: (1536, 8704, 12, 25),
    1085: (1792, 9728, 14, 20),
    1239: (1792, 9728, 14, 23),
    1393: (1792, 9728, 14, 26),
    1542: (2048, 11264, 16, 22),
    1736: (2176, 11776, 17, 22),
    1743: (2048, 11264, 16, 25),
    1944: (2048, 11264, 16, 28),
    1963: (2176, 11776, 17, 25),
    2112: (2304, 12800, 18, 24),
    2191: (2176, 11776, 17, 28),
    2452: (2304, 12800, 18, 28),
    2791: (2304, 12800, 18, 32),
    2808: (2560, 13824, 20, 26),
    3227: (2560, 13824, 20, 30),
    3647: (2560, 13824, 20, 34),
    4016: (2688, 14848, 22, 34),
    4248: (2688, 14848, 21, 36),
    4657: (2816, 15360, 22, 36),
    5534: (3072, 16896, 24, 36),
}
# 22 heads are printed, which do not divide 2,688: a head has 128 dimensions there as in the models around it.
CORRECTED_HEADS = {4016: 21}
VOCABULARY, LENGTH = 32000, 2048
WIDTHS = ("4h", "printed")
# Rungs below the table, ours: studies that a laptop runs, with a joint vocabulary of 4,096 pieces. (hidden, MLP, heads, layers);
# 0.056, 0.142, 0.443 and 1.51 million parameters without embeddings. Counted FLOPs are far from 6N here (models/flops.py).
SMALL = {"A": (48, 128, 3, 2), "B": (64, 160, 4, 3), "C": (96, 256, 6, 4), "E": (160, 416, 10, 5)}
SMALL_VOCABULARY = 4096


def cross_lingual(size: float | str, width: str = "4h") -> DecoderConfig:
    """The model that Table 4 calls `size` million parameters: Llama 2 with 2,048 positions; or "A", "B", "C", "E" of ours.

    The table's own numbers contradict each other. Its labels are, for all 42 rows, the millions (rounded down) of total
    parameters of a model with 32,000 tied embeddings and an MLP four times as wide as `hidden`; with the width printed
    in its FFN column the same models are 23 to 33% larger. `size` names the row by its label either way.

    Args:
        width: of the MLP, "4h" (what the labels count) or "printed" (the FFN column).

    Raises:
        ConfigurationError: no such row (with the nearest), or another width.
    """
    if width not in WIDTHS:
        raise ConfigurationError(f"LADDER_WIDTH = {width!r}: it is {' or '.join(map(repr, WIDTHS))}.")
    if size in SMALL:
        hidden, mlp, heads, layers = SMALL[size]
        return _llama(SMALL_VOCABULARY, hidden, mlp, heads, layers)
    if size not in LADDER:
        if isinstance(size, str):
            raise ConfigurationError(f"LADDER_SIZE = {size!r}: the small rungs are {', '.join(SMALL)}.")
        near = sorted(sorted(LADDER, key=lambda label: abs(label - size))[:2])
        raise ConfigurationError(
            f"LADDER_SIZE = {size:g}: the ladder has no model that is called so; near it are {near[0]} and {near[1]}."
            f"\n  Sizes: {', '.join(map(str, LADDER))}"
        )
    hidden, printed, heads, layers = LADDER[size]
    heads = CORRECTED_HEADS.get(size, heads)
    return _llama(VOCABULARY, hidden, 4 * hidden if width == "4h" else printed, heads, layers)


def _llama(vocabulary: int, hidden: int, mlp: int, heads: int, layers: int) -> DecoderConfig:
    return DecoderConfig(
        vocabulary=vocabulary,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        mlp=mlp,
        tied_embeddings=True,
        maximum_length=LENGTH,
    )
