"""Lengths as people write them: "2e9 tokens", "500 steps", "5%" (of the run). Nothing else knows this notation."""

import math
import re

from cptjax.errors import ConfigurationError

_FORM = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(%|steps?|tokens?)\s*")


def length_in_steps(length: str, total_steps: int, batch_tokens: int, name: str) -> float:
    """Steps in `length`, which may be a fraction of `total_steps` or a number of tokens at `batch_tokens` a step.

    Not rounded: a phase of 2.5 steps ends between two steps, and schedules are continuous there.

    Raises:
        ConfigurationError: text of another form, naming `name`.
    """
    match = _FORM.fullmatch(length) if isinstance(length, str) else None
    if match is None:
        raise ConfigurationError(
            f'{name} = {length!r} is not a length.\n  Write a share of the run ("5%"), or "200 steps", or "1e9 tokens".'
        )
    number, unit = float(match[1]), match[2]
    if unit == "%":
        return number / 100 * total_steps
    return number if unit.startswith("step") else number / batch_tokens


def steps_for_tokens(tokens: int, batch_tokens: int) -> int:
    """Steps that read at least `tokens` tokens: the last step is whole, so a run reads up to one batch more."""
    return max(1, math.ceil(tokens / batch_tokens))
