"""Numbers as the report writes them: a true minus sign, and words where there is no number."""

import math

NONE = "–"


def number(value: float | None, digits: int = 3) -> str:
    """`value` with so many decimals; "not finite" for nan and infinities, a dash for None."""
    if value is None:
        return NONE
    if not math.isfinite(value):
        return f"not finite ({value})"
    return f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """`value` with its sign; what rounds to zero is ±0."""
    if value is None or not math.isfinite(value):
        return number(value, digits)
    text = f"{value:+.{digits}f}"
    return "±" + text[1:] if float(text) == 0 else text.replace("-", "−")


def rate(value: float | None) -> str:
    """A learning rate: 0.002, 4.5e-5."""
    if value is None or not math.isfinite(value):
        return number(value)
    if value == 0 or 1e-3 <= abs(value) < 10:
        return f"{value:.3g}"
    digits, exponent = f"{value:.2e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def percent(share: float) -> str:
    """A share as a percentage: 75%, 0.4%."""
    return f"{100 * share:.3g}%"


def change(before: float, after: float) -> str:
    """How a loss moved, in words that need no colour."""
    if not (math.isfinite(before) and math.isfinite(after)):
        return "cannot be compared: a value is not finite"
    difference = after - before
    if float(f"{difference:.3f}") == 0:
        return "unchanged"
    relative = f" ({percent(abs(difference) / before)})" if before > 0 else ""
    return f"{'fell' if difference < 0 else 'rose'} by {abs(difference):.3f}{relative}"


def listed(words: list[str] | tuple[str, ...]) -> str:
    """Words as a list in a sentence: a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))


def plural(quantity: int, noun: str, plural: str | None = None) -> str:
    """A count and its noun: 1 run, 2 runs."""
    return f"{quantity:,} {noun if quantity == 1 else plural or noun + 's'}"


def flops(operations: int) -> str:
    """A number of floating-point operations: 3.62e11."""
    digits, exponent = f"{operations:.2e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"
