"""A record becomes a document: its text, or a template filled with its fields. What is malformed is named, or passed over.

A template is text with {fields} in braces. A question file's records ({"question", "choices", "answer"}, the answer
counted from 0) have three more: {lettered}, the choices as lines "A. ...", {letter} and {correct}, the right one's letter
and words. So exam questions become documents (the QA blend of arXiv 2407.07263): see QUESTION.
"""

import dataclasses
import json
import string
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from cptjax.data.document import Document
from cptjax.data.readers import Record
from cptjax.errors import ConfigurationError

QUESTION = "Question: {question}\n{lettered}\nAnswer: {letter}. {correct}"
POLICIES = ("error", "skip")
_SHOWN = 5  # malformed records that are quoted
_LATER = {
    "scored_after": None,
    "keep_own_items": False,
}  # settings that came after rows were first made, where they say nothing
_FREE = 10  # malformed records that no cap is applied to: one in a file of three is not a third of a corpus


@dataclasses.dataclass(frozen=True)
class RecordSettings:
    """How records become documents.

    Attributes:
        template: text with fields in braces; None: the field "text" is the document.
        on_bad_record: "error" stops at the first malformed record; "skip" passes over it and counts it.
        most_bad: the share of records that may be passed over (beyond the first 10); more is an error.
        scored_after: of a held-out document only what follows the last such text in it counts (an answer, of what has its question
            too); None: all of it. Training reads whole documents.
        keep_own_items: the source is itself one of the exam files that others are searched for the items of (DECONTAMINATE); it
            keeps these, and loses what it has of other exams.
    """

    template: str | None = None
    on_bad_record: str = "error"
    most_bad: float = 0.001
    scored_after: str | None = None
    keep_own_items: bool = False

    def __post_init__(self):
        if self.scored_after is not None and (not isinstance(self.scored_after, str) or not self.scored_after):
            raise ConfigurationError(
                f"scored_after is {self.scored_after!r}; it is a text that stands in each document, as '\\nAnswer:'."
            )
        if self.on_bad_record not in POLICIES:
            raise ConfigurationError(
                f"on_bad_record is {self.on_bad_record!r}; it is {' or '.join(map(repr, POLICIES))}."
            )
        if not isinstance(self.most_bad, int | float) or not 0 <= self.most_bad <= 1:
            raise ConfigurationError(f"most_bad is {self.most_bad!r}; it is a share of the records, from 0 to 1.")
        if self.template is not None and not template_fields(self.template):
            raise ConfigurationError(
                f"the template {self.template!r} has no {{field}}: every document would be the same."
            )


def as_written(settings: RecordSettings) -> dict[str, object]:
    """The settings as JSON holds them, without later ones that say nothing: rows made before these were known are the same."""
    found = dataclasses.asdict(settings)
    return {name: value for name, value in found.items() if name not in _LATER or value != _LATER[name]}


class Place(NamedTuple):
    """Where a record is: the number of its file among the source's, and its own in the file."""

    file: int
    record: int


BEGINNING = Place(0, 0)


class BadRecords:
    """Those that were passed over: how many, and what the first were."""

    def __init__(self):
        self.count, self.seen = 0, 0
        self.first: list[str] = []

    def add(self, error: ConfigurationError) -> None:
        """Counts one."""
        self.count += 1
        if len(self.first) < _SHOWN:
            self.first.append(str(error).splitlines()[0])

    def check(self, settings: RecordSettings, source: str) -> None:
        """Raises ConfigurationError when too many were passed over."""
        if self.count > max(_FREE, settings.most_bad * self.seen):
            shown = "\n    ".join(self.first)
            raise ConfigurationError(
                f"source {source!r}: {self.count:,} of {self.seen:,} records are malformed, more than the share of "
                f"{settings.most_bad:g} that may be passed over.\n    {shown}\n"
                "  Mend the text, or raise the source's most_bad (sources.Text.most_bad)."
            )


def documents_of(
    records: Iterable[tuple[Place, Record]], settings: RecordSettings, bad: BadRecords, source: str
) -> Iterator[tuple[Place, Document]]:
    """The documents of `records` in their order, and where each is; those with empty text are passed over.

    Raises:
        ConfigurationError: a malformed record, named by file and place, or too many of them.
    """
    for place, record in records:
        bad.seen += 1
        try:
            document = document_of(record, settings.template)
        except ConfigurationError as error:
            if settings.on_bad_record == "error":
                raise
            bad.add(error)
            continue
        if document.text:
            yield place, document
    bad.check(settings, source)


def document_of(record: Record, template: str | None = None) -> Document:
    """The document of one record.

    Raises:
        ConfigurationError: not UTF-8, not JSON, no object, no text, or a field of the template that it lacks.
    """
    if record.is_text and template is None:
        text = _unicode(record.content, record.where)
        return Document(record.name, text, len(text.encode("utf-8")), {})
    fields = fields_of(record)
    text = _text(fields, record.where) if template is None else _filled(template, fields, record.where)
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"{record.where} holds half of a surrogate pair (character {error.start} of its text), which is not Unicode text."
        ) from error
    plain = {
        key: value
        for key, value in fields.items()
        if key not in ("id", "text") and (value is None or isinstance(value, str | int | float))
    }
    name = record.name if fields.get("id") is None else str(fields["id"])
    try:
        json.dumps([name, plain], ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"{record.where} holds half of a surrogate pair in its id or another field, which is not Unicode text."
        ) from error
    return Document(name, text, size, plain)


def template_fields(template: str) -> list[str]:
    """The fields that a template names.

    Raises:
        ConfigurationError: a brace without its other, or more than a name between two.
    """
    try:
        fields = [field for field in string.Formatter().parse(template) if field[1] is not None]
        if odd := [name for _, name, form, conversion in fields if form or conversion or not name.isidentifier()]:
            raise ValueError(f"{{{odd[0]}...}} is more than the name of a field")
        return [name for _, name, _, _ in fields]
    except ValueError as error:
        raise ConfigurationError(
            f"the template {template!r} cannot be read: {error}.\n  A brace that is meant is written twice."
        ) from error


def fields_of(record: Record) -> Mapping[str, object]:
    """The fields of a record; a text's is its "text".

    Raises:
        ConfigurationError: not UTF-8, not JSON, no object.
    """
    if record.is_text:
        return {"text": _unicode(record.content, record.where)}
    if isinstance(record.content, Mapping):
        return record.content
    try:
        found = json.loads(_unicode(record.content, record.where))
    except ValueError as error:
        raise ConfigurationError(
            f'{record.where} is not JSON: {error}.\n  Each line must be an object like {{"id": "a", "text": "..."}}.'
        ) from error
    except RecursionError as error:
        raise ConfigurationError(f"{record.where} is nested too deeply to be a document.") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f'{record.where} holds {type(found).__name__}, not an object with a "text".')
    return found


def _text(fields: Mapping[str, object], where: str) -> str:
    if isinstance(fields.get("text"), str):
        return fields["text"]
    found = f'its "text" is {type(fields["text"]).__name__}' if "text" in fields else f"its fields are {sorted(fields)}"
    raise ConfigurationError(
        f'{where} has no text: {found}.\n  Each record must have a string "text"; a template makes one of other fields.'
    )


def _filled(template: str, fields: Mapping[str, object], where: str) -> str:
    fields = {**fields, **_answered(fields, where)}
    for name in template_fields(template):
        if fields.get(name) is None:
            raise ConfigurationError(
                f"{where} has no {name!r}, which the template names: its fields are {sorted(fields)}."
            )
    return template.format_map(fields)


def _answered(fields: Mapping[str, object], where: str) -> dict[str, str]:
    """{lettered}, {letter} and {correct} of a question's record; nothing for any other."""
    choices, answer = fields.get("choices"), fields.get("answer")
    if not isinstance(choices, list | tuple):
        return {}
    letters = string.ascii_uppercase
    if not 0 < len(choices) <= len(letters) or not all(isinstance(choice, str) for choice in choices):
        raise ConfigurationError(f"{where}: its choices are not 1 to {len(letters)} texts.")
    found = {"lettered": "\n".join(f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=False))}
    if answer is None:
        return found
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise ConfigurationError(
            f"{where}: its answer is {answer!r}; it counts from 0 and is below {len(choices)}, the number of choices."
        )
    return found | {"letter": letters[answer], "correct": choices[answer]}


def _unicode(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{where} is not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}.\n  Convert the file to UTF-8."
        ) from error
