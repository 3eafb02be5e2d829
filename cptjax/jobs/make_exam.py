"""A cloze exam made of text that a run held out."""

import json
from collections.abc import Iterator
from typing import Any

from etils import epath

from cptjax.configuration.values import whole_number
from cptjax.data.document import Document
from cptjax.data.readers import JSONL
from cptjax.data.scan import scan
from cptjax.data.sources import Where, documents, find_source
from cptjax.data.splits import SplitSettings
from cptjax.data.tokenizer import open_tokenizer
from cptjax.errors import ConfigurationError
from cptjax.evaluation.bootstrap import FEW_DOCUMENTS
from cptjax.evaluation.exams.cloze import DISTRACTORS, ClozeSettings, make_questions
from cptjax.evaluation.exams.questions import open_exam
from cptjax.files import write_file
from cptjax.training.signals import stop_at_once


def make_exam(
    input: Where,
    output: str,
    questions: float = ClozeSettings.questions,
    context: float = ClozeSettings.context,
    continuation: float = ClozeSettings.continuation,
    seed: float = ClozeSettings.seed,
    tokenizer: str | None = None,
    validation_fraction: float = SplitSettings.fraction,
    validation_tokens: float = SplitSettings.tokens,
    near_duplicates: float | None = SplitSettings.near_duplicates,
    dry_run: bool = False,
) -> None:
    """Writes `output`, JSON lines that `evaluate` asks as EXAMS: which of four passages goes on where this one stops?

    Args:
        input: the text, written as any source is (data/sources.py).
        questions, context, continuation, seed: see `ClozeSettings`.
        tokenizer: of the runs, a folder: then only documents that they held out are used, by the three settings that follow,
            which are the runs' own. None: all of the text is held out.

    Raises:
        ConfigurationError: text that cannot be read or is too little, or an OUTPUT that cannot be.
        CptjaxError: a damaged file.
    """
    settings = ClozeSettings(
        whole_number(questions, "QUESTIONS", minimum=1),
        whole_number(context, "CONTEXT", minimum=1),
        whole_number(continuation, "CONTINUATION", minimum=1),
        whole_number(seed, "SEED"),
    )
    split = SplitSettings(
        validation_fraction, whole_number(validation_tokens, "VALIDATION_TOKENS", minimum=1), near_duplicates
    )
    source = find_source("INPUT", input)
    opened = None if tokenizer is None else open_tokenizer(tokenizer)
    path = epath.Path(output).expanduser()
    if path.is_dir() or not path.name.endswith(JSONL):
        raise ConfigurationError(f"OUTPUT = '{output}'; name a file that ends in {' or '.join(JSONL)}.")
    which = "all documents" if opened is None else f"documents held out under {tokenizer}"
    print(
        f"{settings.questions:,} questions of {source.where} ({which}): {settings.context} words, then "
        f"which of {1 + DISTRACTORS} passages of {settings.continuation} goes on",
        flush=True,
    )
    if dry_run:
        print(f"would write {path}")
        return

    with stop_at_once("while an exam was made; nothing of it is kept."):
        held_out = None
        if opened is not None:
            found = scan(source, opened, split, lambda line: print(line, flush=True))
            held_out = set(found.members("validation").tolist())
            print(f"{len(held_out):,} of {len(found.names):,} documents are held out")

        def read() -> Iterator[tuple[int, Document]]:
            for ordinal, document in enumerate(documents(source, opened)):
                if held_out is None or ordinal in held_out:
                    yield ordinal, document

        lines = list(make_questions(read, settings))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, "".join(_line(line) for line in lines))
    exam = open_exam(str(path))
    of = len({line["document"] for line in lines})
    print(f"wrote {path}: {exam.questions:,} questions of {of:,} documents")
    if of < FEW_DOCUMENTS:
        print(f"note: {of:,} documents are few: intervals over them will say little. Hold out more (VALIDATION_TOKENS)")


def _line(question: dict[str, Any]) -> str:
    return json.dumps(question, ensure_ascii=False) + "\n"
