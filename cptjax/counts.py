"""Large numbers as people say them."""


def count(number: float) -> str:
    """A number as people say it: 950, 12.3k, 4.56M, 7.89B."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}" if abs(number) < 100 * size else f"{number / size:.0f}{letter}"
    return f"{number:.0f}"
