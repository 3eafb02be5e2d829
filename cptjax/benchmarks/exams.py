"""Exam questions in a second: ours, and lm-evaluation-harness with its Hugging Face backend, of the same model and questions.

Both are given the same texts in the same process and take turns; each turn encodes them and gives every continuation its
log-probability, and these are compared.
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cptjax.benchmarks.bpe import train_bpe
from cptjax.benchmarks.memory import allocated
from cptjax.checkpoints.exporting import export_folder
from cptjax.configuration.values import whole_number
from cptjax.data.tokenizer import Tokenizer, open_tokenizer
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.evaluation.exams.asking import CLOZE, LETTER, Prompt, ask, prompts
from cptjax.evaluation.exams.questions import Question, open_exam
from cptjax.evaluation.exams.scoring import score_asks
from cptjax.evaluation.exams.templates import Template
from cptjax.evaluation.own_samples import Model
from cptjax.models.config import DecoderConfig
from cptjax.models.families.registry import family_of
from cptjax.models.model import initialize, parameter_counts
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

_AGREE = 1e-3  # nats of a continuation, as far as float32 sums in another order
_TEMPLATE = Template()
_FILLING = 2  # times the questions after which batches have been as large as they get

Nats = list[list[float]]  # by prompt, of each continuation


def exam_speed(
    model: DecoderConfig,
    exam: str,
    questions: float = 200,
    batch: float = 16,
    turns: float = 3,
    longer: float = 5,
    threads: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Asks the first `questions` of an exam in letter form (every rotation) and in cloze form, without the answer prior.

    Args:
        model: random weights of this shape; the tokenizer is trained on the exam's own text.
        batch: rows of a batch of the harness; its other settings are its own.
        turns: timed turns of each, after one that is not; ours compiles in that one.
        longer: at last the cloze form with a few times the questions, and with so many times that, to see its memory.
        threads: of torch; None: its own choice.

    Returns:
        By form questions in a second of each (medians), `ratio` (ours over theirs), and `ratio_with_compiling`, of our first
        turn; the largest difference of a log-probability; and MB allocated after fewer and more questions.

    Raises:
        ConfigurationError: the harness is not installed.
        CptjaxError: the two do not agree.
    """
    try:
        import torch
        import transformers
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise ConfigurationError(
            f"the peer of this benchmark is not installed ({error}).\n  pip install 'cptjax[harness]' torch"
        ) from error
    questions, batch, turns, longer = (
        whole_number(value, name, minimum=1)
        for value, name in ((questions, "QUESTIONS"), (batch, "BATCH"), (turns, "TURNS"), (longer, "LONGER"))
    )
    if threads is not None:
        torch.set_num_threads(threads)
    asked = list(itertools.islice(open_exam(exam).read(), questions))
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    found: dict[str, Any] = {"questions": len(asked), "parameters": parameter_counts(model).total}
    with tempfile.TemporaryDirectory(prefix="cptjax-benchmark-") as folder, jax.set_mesh(mesh):
        words = train_bpe(
            (q.question + " " + " ".join(q.choices) for q in asked), model.vocabulary, Path(folder) / "it"
        )
        params = initialize(model, seed, mesh)
        family = family_of({"model_type": "llama"}, "exam_speed")
        export_folder(params, model, family, None, words, f"{folder}/model")
        tokenizer = open_tokenizer(words)
        theirs = HFLM(
            pretrained=transformers.AutoModelForCausalLM.from_pretrained(f"{folder}/model").float().eval(),
            tokenizer=transformers.AutoTokenizer.from_pretrained(f"{folder}/model"),
            batch_size=batch,
            max_length=model.maximum_length,
        )
        mine = Model(params, model, Numerics())
        for form in (LETTER, CLOZE):
            found |= _form(form, asked, mine, tokenizer, mesh, theirs, turns)
        for times in (_FILLING, _FILLING * longer):
            _ours(CLOZE, asked * times, mine, tokenizer, mesh)
            if (held := allocated()) is not None:
                found[f"mb_after_{times * len(asked)}_questions"] = held / 1e6
    return found | {"harness_batch": batch, "torch_threads": torch.get_num_threads()}


def _form(
    form: str,
    asked: Sequence[Question],
    model: Model,
    tokenizer: Tokenizer,
    mesh: jax.sharding.Mesh,
    harness: Any,
    turns: int,
) -> dict[str, Any]:
    texts = [prompt for question in asked for prompt in prompts(question, form, _TEMPLATE, None, 0, prior=False)]
    sides: dict[str, Callable[[], Nats]] = {
        "ours": lambda: _ours(form, asked, model, tokenizer, mesh),
        "harness": lambda: _theirs(texts, harness),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    largest = 0.0
    for _ in range(1 + turns):
        answers = {}
        for name, side in sides.items():
            begin = time.perf_counter()
            answers[name] = side()
            seconds[name].append(time.perf_counter() - begin)
        pairs = zip(answers["ours"], answers["harness"], strict=True)
        largest = max(largest, max(float(np.abs(np.subtract(*pair)).max()) for pair in pairs))
    if not largest <= _AGREE:
        raise CptjaxError(f"the {form} form: log-probabilities differ by {largest:.2g} nats from the harness's.")
    mine, theirs = (statistics.median(seconds[name][1:]) for name in sides)
    return {
        f"{form}_questions_per_second_ours": len(asked) / mine,
        f"{form}_questions_per_second_harness": len(asked) / theirs,
        f"{form}_ratio": theirs / mine,
        f"{form}_ratio_with_compiling": theirs / seconds["ours"][0],
        f"{form}_largest_difference": largest,
    }


def _ours(form: str, asked: Sequence[Question], model: Model, tokenizer: Tokenizer, mesh: jax.sharding.Mesh) -> Nats:
    config = model.config
    each = ask(asked, form, _TEMPLATE, tokenizer, config.maximum_length, prior=False)
    asks = (one for question in each for one in question.asks)
    scored = dict(score_asks(model.params, config, model.numerics, mesh, asks))
    return [scored[number].tolist() for number in range(len(scored))]


def _theirs(texts: Sequence[Prompt], harness: Any) -> Nats:
    from lm_eval.api.instance import Instance

    pairs = [(prompt.context, continuation) for prompt in texts for continuation in prompt.continuations]
    requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    answers = iter(harness.loglikelihood(requests, disable_tqdm=True))
    return [[-next(answers)[0] for _ in prompt.continuations] for prompt in texts]
