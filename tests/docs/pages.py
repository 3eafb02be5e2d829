"""The pages that people read, taken apart: README.md and docs/*.md."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_MAIN = ["-m", "cptjax.main"]


def without_code(page: Path) -> str:
    """A page's text without its blocks of code and what stands between backquotes."""
    text = re.sub(r"^ *(```+).*?^ *\1", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings: in lower case, without punctuation, with dashes for spaces."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def block(page: Path, mark: str) -> str:
    """The code behind <!-- mark -->."""
    found = re.search(
        rf"^<!-- {re.escape(mark)} -->\n```\w*\n(.*?)^```$",
        page.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    assert found, f"{page.name} has no block marked {mark}"
    return found[1]


def marks(page: Path, kind: str) -> list[str]:
    """The names of the blocks marked <!-- kind: NAME -->."""
    return re.findall(rf"^<!-- {kind}: (.*?) -->$", page.read_text(encoding="utf-8"), re.MULTILINE)


class Shown(NamedTuple):
    """A command of a page; `partial` where "..." stands for what is left out."""

    page: str
    arguments: tuple[str, ...]
    partial: bool

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.arguments)}"


def commands(page: Path) -> list[Shown]:
    """Every `python -m cptjax.main ...` of a page's code, with variables and loops as the shell has them."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    blocks += re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)  # code that is indented
    found = []
    for code in blocks:
        for words in _typed(code) if "python -m cptjax.main" in code else ():
            found.append(Shown(page.name, tuple(word for word in words if word != "..."), "..." in words))
    return found


def _typed(code: str) -> list[list[str]]:
    """What a shell would give to `python -m cptjax.main`: in one that finds no program and calls a function of that name."""
    told = """python() { printf '%s\\37' "$@"; printf '\\36'; }\npython3() { :; }\npip() { :; }\n"""
    with tempfile.TemporaryDirectory() as empty:
        shell = [shutil.which("bash"), "--noprofile", "--norc", "-c", told + code.replace(".venv/bin/", "")]
        printed = subprocess.run(shell, cwd=empty, env={"PATH": empty}, capture_output=True, text=True, timeout=20)
    called = [line.split("\x1f")[:-1] for line in printed.stdout.split("\x1e")[:-1]]
    return [words[2:] for words in called if words[:2] == _MAIN]
