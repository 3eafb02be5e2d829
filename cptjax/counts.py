"""Large numbers as people say them."""


def count(number: float) -> str:
    """A number as people say it: 950, 12.3k, 4.56M, 7.89B."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}" if abs(number) < 100 * size else f"{number / size:.0f}{letter}"
    return f"{number:.0f}"


def in_bytes(number: float) -> str:
    """Bytes as people say them: 950 B, 12.3 kB, 4.56 MB, 7.89 GB."""
    said = count(number)
    letter = said[-1] if said[-1].isalpha() else ""
    return f"{said.rstrip(letter) if letter else said} {letter.replace('B', 'G')}B"
