"""What was measured of one checkpoint, by document and by sample: kept, so that nothing is measured twice.

<OUTPUT_DIR>/evaluation/<label>.json holds a measurement, the settings it was made under and the identity of its weights.
evaluation.jsonl is worked out from these files.
"""

import dataclasses
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.evaluation.compared import Compared
from cptjax.evaluation.documents import DocumentLosses
from cptjax.evaluation.exams.answers import ExamAnswers
from cptjax.evaluation.own_samples import SampleLosses
from cptjax.files import read_json, write_file

MEASUREMENTS = "evaluation"
_SHOWN = 8  # changed settings that are listed


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One checkpoint, measured.

    Attributes:
        label, path, step, tokens: what it is called, where it is, which step of a run (None: a Hugging Face folder), and
            target tokens since the base.
        identity: of its weights; tokenizer: the fingerprint of its tokenizer.
        rows: by source the digest of the rows' content: equal ones are the same tokens of the same documents.
        sources: by source what it makes of each held-out document.
        own_samples: what it makes of the base's own samples; None where there are none in its vocabulary.
        samples: the base's own samples, in the base's measurement.
        exams: by exam what it makes of each question.
        in_windows: by source what it makes of each held-out document read in overlapping windows (STRIDE).
    """

    label: str
    path: str
    step: int | None
    tokens: int | None
    identity: str
    tokenizer: str
    rows: Mapping[str, str]
    sources: Mapping[str, DocumentLosses]
    own_samples: SampleLosses | None
    samples: Sequence[Sequence[int]] | None
    exams: Mapping[str, ExamAnswers] = dataclasses.field(default_factory=dict)
    in_windows: Mapping[str, DocumentLosses] = dataclasses.field(default_factory=dict)

    def same_tokens(self, other: "Measurement") -> bool:
        """Whether both have cut the text into the same tokens, so that their losses per token can be compared."""
        return self.tokenizer == other.tokenizer or bool(self.rows) and self.rows == other.rows


def refuse_other_settings(folder: epath.Path, settings: Mapping[str, Any]) -> None:
    """Refuses to go on in a folder that holds measurements made under other settings than these; only these are compared.

    Raises:
        ConfigurationError: what has changed.
    """
    now = json.loads(json.dumps(settings))
    for path in sorted((folder / MEASUREMENTS).glob("*.json")):
        then = _read(path)["settings"]
        differences = [line for name in now for line in _differences(name, then.get(name), now[name])]
        if differences:
            raise ConfigurationError(
                f"'{folder}' holds an evaluation under other settings.\n"
                + "\n".join(f"  {line}" for line in differences[:_SHOWN])
                + "\n  Name another OUTPUT_DIR: what is compared is measured under the same settings."
            )


def find_measurement(folder: epath.Path, one: Compared) -> Measurement | None:
    """The measurement of just this checkpoint, or None. (The settings are compared by `refuse_other_settings`.)"""
    path = _path(folder, one.label)
    if not path.exists():
        return None
    content = _read(path)
    try:
        found = content["measurement"]
        own = found["own_samples"]
        losses, in_windows = (_losses(found.get(kind, {})) for kind in ("sources", "in_windows"))
        samples = None if own is None else SampleLosses(**{name: np.array(values) for name, values in own.items()})
        exams = {name: ExamAnswers.from_json(each) for name, each in found.get("exams", {}).items()}
        measurement = Measurement(
            **{**found, "sources": losses, "in_windows": in_windows, "own_samples": samples, "exams": exams}
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, error) from error
    same = (measurement.identity, measurement.tokenizer) == (one.opened.identity, one.tokenizer.fingerprint)
    return measurement if same else None


def write_measurement(folder: epath.Path, measurement: Measurement, settings: Mapping[str, Any]) -> None:
    """Keeps a measurement; one that was there under the same label is replaced."""
    path = _path(folder, measurement.label)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"settings": dict(settings), "measurement": _lists(dataclasses.asdict(measurement))}
    write_file(path, json.dumps(content, ensure_ascii=False) + "\n")


def _path(folder: epath.Path, label: str) -> epath.Path:
    return folder / MEASUREMENTS / f"{urllib.parse.quote(label, safe=' ')}.json"


def _read(path: epath.Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        raise _damaged(path, "it has no settings")
    return content


def _losses(found: Mapping[str, Any]) -> dict[str, DocumentLosses]:
    return {
        name: DocumentLosses(tuple(each["names"]), *(np.array(each[key]) for key in ("nats", "tokens", "bytes")))
        for name, each in found.items()
    }


def _differences(name: str, then: Any, now: Any) -> list[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*then, *now])
        return [line for key in keys for line in _differences(f"{name}[{key!r}]", then.get(key), now.get(key))]
    return [] if then == now else [f"{name}: {_short(then)} then, {_short(now)} now"]


def _short(value: Any) -> str:
    """A setting's value; of a digest, its beginning."""
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else str(value)


def _lists(value: Any) -> Any:
    """Plain data with numpy arrays as lists."""
    if isinstance(value, dict):
        return {name: _lists(each) for name, each in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def _damaged(path: epath.Path, why: object) -> CptjaxError:
    return CptjaxError(f"{path} is damaged: {why}.\n  Remove it, and the checkpoint is measured again.")
