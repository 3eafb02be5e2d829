"""A step of a study: a job with its own gin files and settings, run by a process of its own (gin is global state)."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cptjax.errors import ConfigurationError

STUDY = "study"  # {study} in a setting is the study's folder; {name} that of the step `name`
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_PLACEHOLDER = re.compile(r"\{([A-Za-z0-9_-]+)\}")
_SETTING = re.compile(r"([A-Za-z_]\w*/)*[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a study.

    Attributes:
        name: of the step, and of the folder in the study's that everything it makes goes to.
        gin_files: the step's gin file, or several; later ones win.
        settings: macros and parameters, as `--gin.NAME=VALUE` would set them, in one dict or in several of which later
            ones win (what steps have in common is then said once). In their strings, however deep, `{other}` stands
            for the folder of the step `other`, which must come before, and `{study}` for the study's.
        output: the macro that is told the step's folder; None where the settings say themselves what is written where.
    """

    name: str
    gin_files: str | Sequence[str]
    settings: Mapping[str, Any] | Sequence[Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    output: str | None = "OUTPUT_DIR"

    def __post_init__(self):
        if not _NAME.fullmatch(self.name) or self.name == STUDY:
            raise ConfigurationError(
                f"a step of the study is named {self.name!r}; a step's name has letters, digits, '_' and '-'"
                f" and is not {STUDY!r}."
            )
        object.__setattr__(self, "gin_files", (self.gin_files,) if isinstance(self.gin_files, str) else self.gin_files)
        parts = [self.settings] if isinstance(self.settings, Mapping) else self.settings
        object.__setattr__(self, "settings", {name: value for part in parts for name, value in part.items()})
        for name, value in self.settings.items():
            if not isinstance(name, str) or not _SETTING.fullmatch(name):
                raise ConfigurationError(
                    f"step {self.name!r} sets {name!r}; a setting is a macro (TRAIN_TOKENS) or a parameter (fn.argument)."
                )
            if name == self.output:
                raise ConfigurationError(
                    f"step {self.name!r} sets {name}, which a study sets to the step's own folder.\n"
                    "  Leave it out, or say output = None for the step."
                )
            _check_plain(value, f"step {self.name!r}, {name}")

    def uses(self) -> tuple[str, ...]:
        """The steps whose folders the settings name, in the order of first mention."""
        found = [name for text in _strings(self.settings) for name in _PLACEHOLDER.findall(text)]
        return tuple(name for name in dict.fromkeys(found) if name != STUDY)

    def arguments(self, study: str) -> list[str]:
        """The flags of the step's command in the study at the folder `study`."""
        settings = dict(self.settings)
        if self.output is not None:
            settings[self.output] = "{" + self.name + "}"
        files = [f"--gin_file={file}" for file in self.gin_files]
        return files + [f"--gin.{name}={_filled(value, study)!r}" for name, value in settings.items()]


def check_steps(steps: Sequence[Step]) -> None:
    """Refuses steps of one name, and a step that uses one that does not come before it.

    Raises:
        ConfigurationError: naming them.
    """
    if not steps:
        raise ConfigurationError("the study has no steps.")
    earlier: list[str] = []
    for step in steps:
        if step.name in earlier:
            raise ConfigurationError(f"two steps of the study are named {step.name!r}.")
        for used in step.uses():
            if used not in earlier:
                raise ConfigurationError(
                    f"step {step.name!r} names the folder {{{used}}}, but no step {used!r} comes before it.\n"
                    f"  Before it come: {', '.join(earlier) or 'none'}; {{{STUDY}}} is the study's own folder."
                )
        earlier.append(step.name)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for pair in value.items() for item in pair for text in _strings(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _strings(item)]
    return []


def _filled(value: Any, study: str) -> Any:
    """`value` with the folders in place of their names."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda found: study if found[1] == STUDY else f"{study}/{found[1]}", value)
    if isinstance(value, Mapping):
        return {_filled(key, study): _filled(item, study) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_filled(item, study) for item in value)
    return value


def _check_plain(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for pair in value.items():
            for item in pair:
                _check_plain(item, where)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_plain(item, where)
    elif value is not None and not isinstance(value, str | int | float | bool):
        raise ConfigurationError(
            f"{where}: {value!r} cannot be given to another process.\n"
            "  Settings are numbers, strings, True, False, None, and lists and dicts of them; what needs a reference\n"
            "  (@function) belongs in one of the step's gin files."
        )
