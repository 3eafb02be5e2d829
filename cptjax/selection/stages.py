"""The stages of a selection: the result of each is kept on disk, so that what was interrupted goes on behind the last one.

Of several processes the first writes, and all read what it wrote: so none goes on with other numbers than the rest.
"""

import dataclasses
import json
import re
import time
import zipfile
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from etils import epath

from cptjax.errors import CptjaxError
from cptjax.files import read_json, whole_file, write_file
from cptjax.sharding.processes import first_then_others, is_first, number_of_first

Arrays = Mapping[str, np.ndarray]
SECONDS = "seconds.json"
_PART = re.compile(r"\d+_")


class Keep(Protocol):
    """What keeps the results of stages, or does not."""

    def __call__(self, name: str, make: Callable[[], Arrays], together: bool = False) -> Arrays:
        """See `Stages.keep`."""


def keep_nothing(name: str, make: Callable[[], Arrays], together: bool = False) -> Arrays:
    """What `make` gives, which is not kept."""
    return make()


@dataclasses.dataclass(frozen=True)
class Stages:
    """A folder that holds the result of each stage; `say` is told of each as it ends."""

    folder: epath.Path
    say: Callable[[str], None] = print

    def keep(self, name: str, make: Callable[[], Arrays], together: bool = False) -> Arrays:
        """The arrays of a stage: those in the folder, or those that `make` gives, which are kept.

        Args:
            together: of several processes each calls `make`, which computes on the devices of all; otherwise the first alone.

        Raises:
            CptjaxError: the file of the stage is damaged.
        """
        path = self.folder / f"{name}.npz"
        if number_of_first(path.exists()):
            self.say(f"  {name}: done before")
            return _read(path)
        begin = time.monotonic()
        made = make() if together else None

        def write() -> Arrays:
            if not is_first():
                return _read(path)
            found = make() if made is None else made
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as stream:
                np.savez(stream, **found)
            self.took(name, time.monotonic() - begin)
            return found

        return first_then_others(write)

    def took(self, name: str, seconds: float) -> None:
        """Notes how long a stage took, in the process that ended it; what was killed before is not counted."""
        every = {**self.seconds(), name: round(seconds, 2)}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_file(self.folder / SECONDS, json.dumps(every, indent=1) + "\n")
        self.say(f"  {name}: {seconds:.1f} s")

    def seconds(self) -> dict[str, float]:
        """How long each stage took that has ended."""
        return read_json(self.folder / SECONDS) if (self.folder / SECONDS).exists() else {}

    def seconds_of_all(self) -> dict[str, float]:
        """The same with the stages of the parts, each by its part's folder, which is numbered, and its name."""
        found = self.seconds()
        for part, stages in self.parts().items():
            found |= {f"{part}: {name}": each for name, each in stages.seconds().items()}
        return found

    def parts(self) -> dict[str, "Stages"]:
        """The stages of each part of a chain, in the chain's order, by its folder ("0_D4"); of a chain in it "1_Chain: 0_D4"."""
        numbered = [path for path in self.folder.glob("*_*") if _PART.match(path.name)] if self.folder.exists() else []
        found = {}
        for path in sorted(numbered, key=lambda path: int(path.name.partition("_")[0])):
            part = Stages(path, self.say)
            found[path.name] = part
            found |= {f"{path.name}: {name}": each for name, each in part.parts().items()}
        return found

    def below(self, name: str) -> "Stages":
        """The stages of a part, in a folder of their own."""
        return Stages(self.folder / name, self.say)


def _read(path: epath.Path) -> Arrays:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise CptjaxError(f"{path} is damaged ({error}).\n  Remove it: this stage is then done again.") from error
