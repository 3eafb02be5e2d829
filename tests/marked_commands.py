"""The commands of a documentation page: code blocks marked as README.md's are, by a line `<!-- command: NAME -->` before."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(
    r"(?:^<!-- command: (?P<name>\w+) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


def blocks(page: str) -> list[tuple[str | None, str, str]]:
    """Each fenced code block of a page: the name it is marked with, its language ("" where none is said), its text."""
    return [
        (found["name"], found["kind"], found["text"]) for found in _BLOCK.finditer((ROOT / page).read_text("utf-8"))
    ]


def commands(page: str) -> dict[str, str]:
    """The text of each marked block by its name."""
    marked = [(name, text) for name, _, text in blocks(page) if name]
    found = dict(marked)
    assert len(found) == len(marked), f"{page}: a name is there twice: {sorted(name for name, _ in marked)}"
    return found


def cptjax_arguments(command: str) -> list[str] | None:
    """What a command hands to cptjax.main, whatever starts it; None if it does not start it."""
    words = shlex.split(command.replace("\\\n", " "))
    return words[words.index("cptjax.main") + 1 :] if "cptjax.main" in words else None
