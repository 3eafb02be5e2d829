"""How rotary frequencies are stretched so that a model reads further than it was trained: plain, checked data.

What each does to the frequencies stands in `rope.py`.
"""

import dataclasses
from typing import Any, ClassVar

from cptjax.errors import ConfigurationError
from cptjax.models.checked_fields import require_positive


@dataclasses.dataclass(frozen=True)
class Llama3Rope:
    """Llama 3.1's stretching of the rotary frequencies: long wavelengths are slowed by `factor`, short ones kept.

    Wavelengths above `original_length / low_frequency_factor` are slowed, those below
    `original_length / high_frequency_factor` kept, those between interpolated.
    """

    KIND: ClassVar[str] = "llama3"
    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_length: int

    def __post_init__(self) -> None:
        require_positive(self, "factor", "low_frequency_factor", "high_frequency_factor", "original_length")
        if self.high_frequency_factor <= self.low_frequency_factor:
            raise ConfigurationError(
                f"rope_scaling: high_frequency_factor ({self.high_frequency_factor}) must be greater than "
                f"low_frequency_factor ({self.low_frequency_factor})."
            )

    def to_json(self) -> dict[str, Any]:
        """Its fields; it was the only kind once, and bears no mark."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class LinearRope:
    """All frequencies slowed by `factor` (position interpolation, arXiv 2306.15595)."""

    KIND: ClassVar[str] = "linear"
    factor: float

    def __post_init__(self) -> None:
        require_positive(self, "factor")

    def to_json(self) -> dict[str, Any]:
        """Its fields and its kind."""
        return {"kind": self.KIND} | dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class YarnRope:
    """YaRN (arXiv 2309.00071): dimensions that turn less than `slow` times in `original_length` are slowed by `factor`.

    Those that turn more than `fast` times are kept, those between interpolated.

    Attributes:
        attention_factor: what the turned queries and keys are multiplied by; None is 0.1 ln(factor) + 1 (section 3.4).
        truncate: the bounds of the interpolation are rounded outwards to whole dimensions.
    """

    KIND: ClassVar[str] = "yarn"
    factor: float
    original_length: int
    fast: float = 32.0
    slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True

    def __post_init__(self) -> None:
        said = () if self.attention_factor is None else ("attention_factor",)
        require_positive(self, "factor", "original_length", "fast", "slow", *said)
        if self.fast <= self.slow:
            raise ConfigurationError(f"rope_scaling: fast ({self.fast}) must be greater than slow ({self.slow}).")
        if not isinstance(self.truncate, bool):
            raise ConfigurationError(f"rope_scaling: truncate = {self.truncate!r}; it must be True or False.")

    def to_json(self) -> dict[str, Any]:
        """Its fields and its kind."""
        return {"kind": self.KIND} | dataclasses.asdict(self)


RopeScaling = Llama3Rope | LinearRope | YarnRope
SCALINGS: dict[str, type[RopeScaling]] = {kind.KIND: kind for kind in (Llama3Rope, LinearRope, YarnRope)}
