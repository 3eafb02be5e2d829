"""What an evaluation is asked for: what cannot be is refused before anything is read or made."""

from collections.abc import Mapping, Sequence
from typing import Any

from cptjax.errors import ConfigurationError
from cptjax.evaluation.compared import Compared
from cptjax.evaluation.exams.questions import Exam


def check_asked(
    sources: Mapping[str, Any],
    exams: Sequence[Exam],
    tasks: Sequence[str],
    length: int,
    stride: int | None,
    group_by: Any,
    select_on: str | None,
) -> None:
    """Refuses settings that cannot be, or cannot be together.

    Raises:
        ConfigurationError: nothing to evaluate on; windows further apart than they are long; a GROUP_BY that is no mapping of
            texts, or names another source; a SELECT_ON that is neither a source nor an exam, or both, or a source of which half
            would still be reported.
    """
    named = [exam.name for exam in exams]
    if not sources and not exams and not tasks:
        raise ConfigurationError(
            "SOURCES is empty: there is no text to evaluate on, and EXAMS names no exam, nor TASKS a task of the harness."
        )
    if stride is not None and stride > length:
        raise ConfigurationError(
            f"STRIDE = {stride}, but windows are as long as rows, SEQUENCE_LENGTH = {length} tokens: further apart they "
            "leave text out."
        )
    _check_groups(group_by, sources)
    if select_on is None:
        return
    if (select_on in sources) == (select_on in named):
        said = "is both a source and an exam; give one of them another name" if select_on in sources else "is neither"
        raise ConfigurationError(
            f"SELECT_ON = {select_on!r} {said}. It is a source or an exam: {', '.join([*sources, *named]) or 'there is none'}."
        )
    if select_on in sources and (stride is not None or select_on in (group_by or {})):
        raise ConfigurationError(
            f"SELECT_ON = {select_on!r}: half of its documents are not reported, which STRIDE and GROUP_BY do not leave out.\n"
            "  Do without them, or select on another source or on an exam."
        )


def _check_groups(group_by: Any, sources: Mapping[str, Any]) -> None:
    if group_by is None:
        return
    if not isinstance(group_by, Mapping) or not all(
        isinstance(each, str) and each for pair in group_by.items() for each in pair
    ):
        raise ConfigurationError(f"GROUP_BY = {group_by!r}; it is {{'source': 'a field of its records'}}.")
    for source in group_by:
        if source not in sources:
            raise ConfigurationError(
                f"GROUP_BY names the source {source!r}; SOURCES has {', '.join(sources) or 'none'}."
            )


def check_candidates(select_on: str | None, compared: Sequence[Compared], base: Compared) -> None:
    """Raises ConfigurationError where SELECT_ON has fewer than two checkpoints to choose among."""
    if select_on is not None and len(compared) < 3:
        others = ", ".join(one.label for one in compared if one is not base)
        raise ConfigurationError(
            f"SELECT_ON = {select_on!r}, but beside the base {base.label!r} there are not two checkpoints to choose among: "
            f"{others or 'none'}."
        )


def refuse_too_long(one: Compared, lengths: Mapping[str, int]) -> None:
    """Raises ConfigurationError for texts (macro -> tokens) that are longer than the checkpoint was made for."""
    for name, length in lengths.items():
        if length > (longest := one.opened.config.maximum_length):
            raise ConfigurationError(
                f"{name} = {length}, but {one.label!r} was made for at most {longest} positions.\n"
                f"  (max_position_embeddings of {one.opened.model_folder}) Lower {name}."
            )
