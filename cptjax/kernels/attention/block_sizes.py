"""Block sizes of the TPU kernels by generation and head dimension, and what a kernel may keep in VMEM."""

import dataclasses

from cptjax.errors import ConfigurationError

LANES = 128
HEAD_DIM = 64  # head dimensions are filled up to a multiple of it
MIB = 1 << 20
MOST_BLOCKS = 127  # of keys that lie in VMEM together: a plan has seven bits to count them


@dataclasses.dataclass(frozen=True)
class BlockSizes:
    """How many queries and keys are worked on at a time.

    Attributes:
        queries, keys: of a block of the forward pass. A block of keys is the least that is visited or not.
        resident_keys: keys that lie in VMEM at a time, through which a block of queries goes without a new grid step.
        backward_queries, backward_keys, backward_resident_keys: the same of the backward pass.
    """

    queries: int
    keys: int
    resident_keys: int
    backward_queries: int
    backward_keys: int
    backward_resident_keys: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < LANES or getattr(self, field.name) % LANES:
                raise ConfigurationError(
                    f"attention: block size {field.name} = {getattr(self, field.name)}; it must be a multiple of {LANES}."
                )
        for whole, part in (("resident_keys", "keys"), ("backward_resident_keys", "backward_keys")):
            if getattr(self, whole) % getattr(self, part):
                raise ConfigurationError(
                    f"attention: {whole} = {getattr(self, whole)} is no multiple of {part} = {getattr(self, part)}."
                )
            if getattr(self, whole) // getattr(self, part) > MOST_BLOCKS:
                raise ConfigurationError(
                    f"attention: {whole} = {getattr(self, whole)} is more than {MOST_BLOCKS} times {part} = {getattr(self, part)}."
                )


# Bytes of a core's VMEM that a kernel may ask for. v4 has 16 MiB; v5e, v5p and v6e 128, tpu7x 64 (as the ahead-of-time
# compiler refuses beyond); some is left to the compiler.
VMEM = {"v4": 15 * MIB, "v5e": 96 * MIB, "v5p": 90 * MIB, "v6e": 96 * MIB, "tpu7x": 56 * MIB}

# (queries, keys) of the forward and of the backward pass by generation and head dimension, of bfloat16. Made by
# gin/benchmarks/attention.gin with MODE = "block_sizes", GENERATIONS = ("v4", ...) and HEAD_DIMS = (64, 128, 192, 256): the least
# estimated work over packed rows (docs/benchmarks.md).
TABLE: dict[tuple[str, int], tuple[int, int, int, int]] = {
    ("v4", 64): (512, 512, 512, 512),
    ("v4", 128): (512, 512, 512, 512),
    ("v4", 192): (512, 256, 512, 512),
    ("v4", 256): (512, 256, 512, 512),
    ("v5e", 64): (512, 512, 512, 512),
    ("v5e", 128): (512, 512, 512, 512),
    ("v5e", 192): (512, 512, 256, 256),
    ("v5e", 256): (512, 512, 512, 512),
    ("v5p", 64): (512, 512, 512, 512),
    ("v5p", 128): (512, 512, 512, 512),
    ("v5p", 192): (512, 512, 512, 512),
    ("v5p", 256): (512, 512, 512, 512),
    ("v6e", 64): (512, 512, 512, 512),
    ("v6e", 128): (512, 512, 512, 512),
    ("v6e", 192): (512, 512, 512, 512),
    ("v6e", 256): (512, 512, 512, 512),
    ("tpu7x", 64): (512, 512, 512, 512),
    ("tpu7x", 128): (512, 512, 512, 512),
    ("tpu7x", 192): (512, 512, 512, 512),
    ("tpu7x", 256): (512, 512, 512, 512),
}

# Of what VMEM a kernel may ask for, how much it fills with what stays there: the rest is blocks in flight and the scores.
_RESIDENT = 0.5


def block_sizes_for(generation: str, head_dim: int, itemsize: int) -> BlockSizes:
    """The committed sizes for a TPU generation and a (padded) head dimension, and as many resident keys as VMEM takes.

    Args:
        itemsize: bytes of a number of the inputs. Products of float32 are many of bfloat16: smaller blocks compile sooner.

    Raises:
        ConfigurationError: a head dimension that the table does not have.
    """
    if (generation, head_dim) not in TABLE:
        most = max(size for _, size in TABLE)
        raise ConfigurationError(
            f"attention: our TPU kernels take head dimensions up to {most}, not {head_dim}.\n  Take 'reference' (ATTENTION)."
        )
    queries, keys, backward_queries, backward_keys = TABLE[generation, head_dim]
    if itemsize > 2:
        halves = (max(LANES, size // 2) for size in (queries, keys, backward_queries, backward_keys))
        queries, keys, backward_queries, backward_keys = halves
    row = -(-head_dim // LANES) * LANES
    room = _RESIDENT * VMEM[generation]
    # Keys and values in two buffers; backward their gradients too, and the sums of these in float32.
    forward, backward = row * 4 * itemsize, row * (8 * itemsize + 8)
    return BlockSizes(
        queries,
        keys,
        _multiple(room / forward, keys),
        backward_queries,
        backward_keys,
        _multiple(room / backward, backward_keys),
    )


def vmem_asked(held: int, passing: int, scores: int, most: int) -> int:
    """Bytes of VMEM that a kernel asks for: what it needs, since XLA keeps arrays of its own in what is left.

    Args:
        held: bytes of scratch; passing: of blocks that come and go, in two buffers each; scores: of one block of scores in
            float32, of which several stages are alive at a time.
        most: what it may ask for.
    """
    return min(most, max(16 * MIB, held + 2 * passing + 8 * scores + 2 * MIB))


def _multiple(most: float, block: int) -> int:
    return max(block, min(8192, int(most) // block * block))
