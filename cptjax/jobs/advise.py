"""This checkpoint, this much text, this budget: what fitted laws say to do, how sure they are, and what they cannot know."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from cptjax.configuration import resolved_config
from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError
from cptjax.files import read_json
from cptjax.reporting.folder import RunFolder
from cptjax.scaling.advice import ANSWERS, Asked, Situation
from cptjax.scaling.bootstrap import PERCENTILES
from cptjax.scaling.decisions import Values
from cptjax.scaling.saved_fit import FIT, SavedFit, read_fit

ADVICE = "advice.json"


def advise(
    output_dir: str,
    params: float,
    compute: float,
    text_tokens: float | None = None,
    prior_tokens: float | None = None,
    forgetting_limit: float = 0.05,
    scratch_fit: str | None = None,
    continued_fit: str | None = None,
    forgetting_fit: str | None = None,
    epochs_fit: str | None = None,
    split_fits: Mapping[str, str] | None = None,
    refits: int = 200,
    dry_run: bool = False,
) -> None:
    """Writes `<output_dir>/advice.json` and `advice.md`: each question with its answer, an interval, and what was assumed.

    A question is answered where its fits are given, and named with what it would take where they are not.

    Args:
        params: of the checkpoint, counted as the fits count them.
        compute: the budget in FLOPs, 6 N D.
        text_tokens: unique tokens of the new text.
        prior_tokens: that the checkpoint was trained on, for laws that read it.
        forgetting_limit: nats by which the loss on general text may rise: above the base's with a fit of `forgetting`, above what
            the same tokens of general text alone would give with one of `general_mixture`.
        scratch_fit: folder of a fit from scratch on the new text (`chinchilla`).
        continued_fit: folder of a fit of continued pretraining (`cross_lingual`, `joint_term`, `effective_tokens`, ...).
        forgetting_fit: folder of a fit of `forgetting` or `general_mixture`.
        epochs_fit: folder of a fit of `data_constrained`.
        split_fits: folders of fits by domain that read `prior_tokens`, to split the budget among.
        refits: so many of the bootstrap's refits are decided by, for the intervals.

    Raises:
        ConfigurationError: no fit is given, a folder holds none, or a number cannot be.
    """
    for name, value in (("PARAMS", params), ("COMPUTE", compute), ("FORGETTING_LIMIT", forgetting_limit)):
        if not value > 0:
            raise ConfigurationError(f"{name} = {value!r} must be above 0.")
    if compute < 6 * params:
        raise ConfigurationError(
            f"COMPUTE = {compute:g} FLOPs is less than one token for {params:g} parameters (6 N D): is it in other units?"
        )
    count = whole_number(refits, "REFITS", 1)
    named = {"scratch": scratch_fit, "continued": continued_fit, "forgetting": forgetting_fit, "epochs": epochs_fit}
    fits = {name: read_fit(folder, count, f"{name.upper()}_FIT") for name, folder in named.items() if folder}
    fits |= {f"split {name}": read_fit(folder, count, "SPLIT_FITS") for name, folder in (split_fits or {}).items()}
    if not fits:
        raise ConfigurationError(
            "No fit is given: SCRATCH_FIT, CONTINUED_FIT, FORGETTING_FIT, EPOCHS_FIT or SPLIT_FITS names folders that "
            "fit_law wrote."
        )
    for name, saved in fits.items():
        if name.startswith("split ") and "prior_tokens" not in saved.ranges:
            raise ConfigurationError(
                f"SPLIT_FITS: the law '{saved.estimate.law.name}' of {saved.folder} knows nothing of tokens before "
                "specialising; effective_tokens and its rivals do (docs/scaling.md)."
            )
    situation = Situation(params, compute, text_tokens, prior_tokens, forgetting_limit)
    folder = RunFolder(output_dir)
    print(
        f"{params:g} parameters, {compute:g} FLOPs: {situation.tokens:,.0f} tokens to train on",
        flush=True,
    )
    settings = {
        **dataclasses.asdict(situation),
        "refits": count,
        "fits": {
            name: hashlib.sha256((epath.Path(each.folder).expanduser() / FIT).read_bytes()).hexdigest()
            for name, each in fits.items()
        },
    }
    if folder.holds(ADVICE, settings):
        print(as_markdown(read_json(folder.path / ADVICE)))
        print(f"{folder.path} is finished; nothing to do.")
        return
    if dry_run:
        return
    lock = folder.hold()
    folder.start(resolved_config(), sys.argv, {})
    answers = [_answer(asked, situation, fits) for asked in ANSWERS]
    result = {
        "situation": dataclasses.asdict(situation),
        "settings": settings,
        "fits": {name: saved.folder for name, saved in fits.items()},
        "answers": answers,
        "warnings": _beyond(situation, fits),
        "assumed": [
            "compute is 6 N D: attention, evaluation and restarts are not counted, nor the training of the checkpoint itself",
            "the new runs are tuned and cooled down as those were that the laws were fitted to",
            "losses are per token of one tokenizer, on the text that the laws were fitted on",
        ],
    }
    folder.write(ADVICE, json.dumps(result, indent=1, allow_nan=False) + "\n")
    folder.write("advice.md", as_markdown(result))
    folder.finish({"job": "advise"})
    print(as_markdown(result))
    print(f"wrote {folder.path / ADVICE}")
    if lock is not None:
        lock.close()


def _answer(asked: Asked, situation: Situation, fits: Mapping[str, SavedFit]) -> dict[str, Any]:
    """One question's answer with intervals; or what it would take."""
    used = {name: saved for name, saved in fits.items() if asked.uses(name)}
    if lacking := asked.lacking(situation, used):
        return {"question": asked.question, "answer": None, "takes": lacking}

    def decide(values: Mapping[str, Values]) -> dict[str, float]:
        return asked.decide(situation, values)

    try:
        estimate = decide({name: saved.estimate for name, saved in used.items()})
    except ConfigurationError as error:
        return {"question": asked.question, "answer": None, "takes": str(error)}
    # A law that takes parameters of another fit was refitted with these as they are: then the other stays as it is, too.
    conditional = any(saved.estimate.law.given for saved in used.values())
    varied = {name: saved for name, saved in used.items() if saved.estimate.law.given or not conditional}
    held = {name: saved.estimate for name, saved in used.items() if name not in varied}
    draws = min((len(saved.refits) for saved in varied.values()), default=0)
    intervals, failed = _intervals(lambda values: decide({**held, **values}), varied, draws)
    return {
        "question": asked.question,
        "answer": {name: _number(value) for name, value in estimate.items()},
        "intervals": intervals,
        "refits_without_answer": failed,
        "intervals_hold": sorted(held),
        "says": asked.says(situation, estimate, intervals or {}),
        "cannot_know": asked.cannot_know,
    }


def _intervals(
    decide: Callable[[Mapping[str, Values]], dict[str, float]], used: Mapping[str, SavedFit], draws: int
) -> tuple[dict[str, list[float | None]] | None, int]:
    """95% percentiles of the decisions by each refit, and how many of them had none."""
    found, failed = [], 0
    for n in range(draws):
        try:
            found.append(decide({name: saved.refits[n] for name, saved in used.items()}))
        except ConfigurationError:
            failed += 1
    if len(found) < 2:
        return None, failed
    return {
        name: [_number(end) for end in np.percentile([each[name] for each in found], PERCENTILES, method="nearest")]
        for name in found[0]
    }, failed


def _number(value: float) -> float | None:
    """For JSON, which has no infinity: None."""
    return float(value) if np.isfinite(value) else None


def _beyond(situation: Situation, fits: Mapping[str, SavedFit]) -> list[str]:
    """Warnings of what lies outside the runs that a law was fitted to, and the fit's own."""
    asked = {
        "params": situation.params,
        "tokens": situation.compute / 6 / situation.params,
        "prior_tokens": situation.prior_tokens,
        "unique_tokens": situation.text_tokens,
    }
    found = []
    for name, saved in fits.items():
        for column, (low, high) in saved.ranges.items():
            value = asked.get(column)
            if value is not None and not low <= value <= high:
                times = value / high if value > high else low / value
                found.append(
                    f"{name}: {column} = {value:.3g} is {times:.3g} times {'above' if value > high else 'below'} the runs of "
                    f"{saved.folder} ({low:.3g} to {high:.3g}): the law is taken on trust there"
                )
        found += [f"{name}: {line}" for line in saved.warnings]
    return found


def as_markdown(result: Mapping[str, Any]) -> str:
    """The advice as a page of text."""
    lines = ["# Advice", ""]
    for each in result["answers"]:
        lines += [f"## {each['question']}", ""]
        if each["answer"] is None:
            lines += [f"Not answered: {each['takes']}", ""]
            continue
        lines += [each["says"], "", "| | estimate | 95% |", "|---|---|---|"]
        for name, value in each["answer"].items():
            interval = (each["intervals"] or {}).get(name)
            shown = " to ".join(_shown(end) for end in interval) if interval else ""
            lines.append(f"| {name} | {_shown(value)} | {shown} |")
        if each["intervals_hold"]:
            lines += ["", f"Held fixed in these intervals: {', '.join(each['intervals_hold'])}."]
        if each["refits_without_answer"]:
            lines += ["", f"{each['refits_without_answer']} refits have no answer: the interval is of the others."]
        lines += ["", f"What this cannot know: {each['cannot_know']}", ""]
    lines += ["## Assumed", "", *(f"- {line}" for line in result["assumed"])]
    if result["warnings"]:
        lines += ["", "## To be doubted", "", *(f"- {line}" for line in result["warnings"])]
    return "\n".join(lines) + "\n"


def _shown(value: float | None) -> str:
    return "none found" if value is None else f"{value:.4g}"
