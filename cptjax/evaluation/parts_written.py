"""An output file that is made part by part: who is stopped goes on after the last whole part, on a disk and in a bucket.

`<output>.parts/` holds settings.json, which says what the parts are of, and 000000.jsonl, 000001.jsonl, ... The output appears
when all of them are there, whole; then the folder goes.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from cptjax.errors import ConfigurationError
from cptjax.files import read_json, whole_file, write_file

_SETTINGS = "settings.json"


class PartsWritten:
    """The parts of `output` that are there already, of an earlier start with the same settings."""

    def __init__(self, output: epath.PathLike, settings: Mapping[str, Any]):
        """Looks, and writes nothing.

        Args:
            settings: macro -> value, plain data: all that decides what the parts hold.

        Raises:
            ConfigurationError: parts of a start with other settings, and which these are.
        """
        self.output = epath.Path(output)
        self.folder = self.output.parent / f"{self.output.name}.parts"
        self._settings = json.loads(json.dumps(settings))
        self.done = 0
        if (self.folder / _SETTINGS).exists():
            then = read_json(self.folder / _SETTINGS)
            names = dict.fromkeys([*then, *self._settings])
            if changed := [name for name in names if then.get(name) != self._settings.get(name)]:
                differences = "\n".join(
                    f"  {name}: {then.get(name)} then, {self._settings.get(name)} now" for name in changed
                )
                raise ConfigurationError(
                    f"'{self.folder}' holds the beginning of another file, which was stopped before it was whole:\n"
                    f"{differences}\n  Give back these settings, name another OUTPUT, or remove the folder."
                )
            while self._part(self.done).exists():
                self.done += 1

    def write(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """The next part, a JSON object a line."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / _SETTINGS).exists():
            write_file(self.folder / _SETTINGS, json.dumps(self._settings, ensure_ascii=False) + "\n")
        content = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
        write_file(self._part(self.done), content)
        self.done += 1

    def finish(self) -> None:
        """The output, of all the parts; one that was there is replaced."""
        self.output.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(self.output) as stream:
            for number in range(self.done):
                stream.write(self._part(number).read_bytes())
        if self.folder.exists():
            self.folder.rmtree()

    def _part(self, number: int) -> epath.Path:
        return self.folder / f"{number:06d}.jsonl"
