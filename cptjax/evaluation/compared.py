"""The checkpoints that an evaluation compares: each by its label, opened but not yet loaded, and which of them is the base."""

import dataclasses
import glob
import os
import re
from collections.abc import Mapping, Sequence

from etils import epath

from cptjax.checkpoints.source import CHECKPOINTS, OpenedCheckpoint, open_checkpoint
from cptjax.data.tokenizer import Tokenizer, open_tokenizer, refuse_rows_too_few
from cptjax.errors import ConfigurationError
from cptjax.files import is_local

BASE = "base"  # the label of a base that is no other checkpoint's


@dataclasses.dataclass(frozen=True)
class Compared:
    """A checkpoint of the comparison."""

    label: str
    opened: OpenedCheckpoint
    tokenizer: Tokenizer

    @property
    def step(self) -> int | None:
        """The run's; None for a Hugging Face folder."""
        return self.opened.step

    @property
    def tokens(self) -> int | None:
        """Target tokens since the base, by the lineage; None for a Hugging Face folder, which has none."""
        return None if self.opened.store is None else self.opened.lineage.tokens


def open_compared(
    checkpoints: Mapping[str, str] | Sequence[str] | str, base: str | None
) -> tuple[list[Compared], Compared]:
    """Opens every checkpoint, in the order given, and says which is the base.

    Args:
        checkpoints: label -> path of a run's folder, of one checkpoint in it, or of a Hugging Face folder; or a list of
            paths, or one, whose labels are their last parts. A glob stands for all that match it, steps in their order:
            "runs/first/checkpoints/*" are a run's checkpoints (under a label of its own each is "label/step"), of which the
            first is then the base where `base` is None.
        base: a label, or a path (of none of them: it comes first, as "base"); None: the first.

    Raises:
        ConfigurationError: no checkpoint, one that is not there, a label twice, an unknown base, or a checkpoint whose
            tokenizer is not its own.
        CptjaxError: a damaged checkpoint.
    """
    paths = labelled(checkpoints)
    label = next(iter(paths)) if base is None else _label_of_base(base, paths)
    if label not in paths:
        paths = {label: base, **paths}
    compared = [_open(name, path) for name, path in paths.items()]
    return compared, compared[list(paths).index(label)]


def labelled(checkpoints: Mapping[str, str] | Sequence[str] | str) -> dict[str, str]:
    """Label -> path. Raises ConfigurationError where there is none, or two have the same label."""
    if isinstance(checkpoints, Mapping):
        pairs = []
        for label, path in checkpoints.items():
            found = _matches(path)
            pairs += (
                [(label, path)] if found is None else [(f"{label}/{os.path.basename(each)}", each) for each in found]
            )
    else:
        given = [checkpoints] if isinstance(checkpoints, str) else list(checkpoints)
        paths = [each for path in given for each in _matches(path) or [path]]
        pairs = [(os.path.basename(_plain(path)), path) for path in paths]
    if not pairs:
        raise ConfigurationError("CHECKPOINTS is empty: name a checkpoint, or several.")
    labels = [label for label, _ in pairs]
    for label, path in pairs:
        if not isinstance(label, str) or not label.strip() or not isinstance(path, str) or not path:
            raise ConfigurationError(f"CHECKPOINTS holds {label!r}: {path!r}; write {{'label': 'path', ...}}.")
        if labels.count(label) > 1:
            both = " and ".join(str(path) for name, path in pairs if name == label)
            raise ConfigurationError(
                f"CHECKPOINTS gives the label {label!r} twice: {both}.\n"
                "  A path is labelled by its last part; say CHECKPOINTS = {'one': path, 'another': path}."
            )
    return dict(pairs)


def _matches(path: str) -> list[str] | None:
    """The paths that match a glob, numbers in their order; None where `path` is no glob.

    Raises:
        ConfigurationError: nothing does.
    """
    if not isinstance(path, str) or not any(letter in path for letter in "*?[") or not is_local(path):
        return None
    plain = os.path.expanduser(path)
    if os.path.exists(plain):
        return None
    found = [each.rstrip("/") for each in glob.glob(plain) if os.path.isdir(each)]
    # Beside a run's steps may be the temporary folder of a save that was killed.
    steps = [each for each in found if _parent(each) == CHECKPOINTS and os.path.basename(each).isdigit()]
    found = [each for each in found if _parent(each) != CHECKPOINTS or not steps or each in steps]
    if not found:
        raise ConfigurationError(f"CHECKPOINTS: no folder matches {path!r} (in {os.getcwd()}).")
    return sorted(found, key=lambda each: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", each)])


def _parent(path: str) -> str:
    return os.path.basename(os.path.dirname(path))


def _label_of_base(base: str, paths: Mapping[str, str]) -> str:
    if base in paths:
        return base
    if same := [label for label, path in paths.items() if _plain(path) == _plain(base)]:
        return same[0]
    if not epath.Path(base).expanduser().exists():
        raise ConfigurationError(
            f"BASE = {base!r} is neither a label of CHECKPOINTS ({', '.join(map(repr, paths))}) nor the path of a checkpoint."
        )
    if BASE in paths:
        raise ConfigurationError(
            f"BASE = {base!r} would be labelled {BASE!r}, but CHECKPOINTS has another of that label: {paths[BASE]}.\n"
            "  Give the base a label of its own in CHECKPOINTS, and name that label as BASE."
        )
    return BASE


def _open(label: str, path: str) -> Compared:
    try:
        opened = open_checkpoint(path)
        tokenizer = open_tokenizer(str(opened.model_folder))
    except ConfigurationError as error:
        raise ConfigurationError(f"the checkpoint {label!r}: {error}") from None
    refuse_rows_too_few(tokenizer, opened.config.vocabulary, f"the checkpoint {label!r}")
    return Compared(label, opened, tokenizer)


def _plain(path: str) -> str:
    """A path as it can be compared with another."""
    return os.path.abspath(os.path.expanduser(path)) if is_local(path) else str(path).rstrip("/")
