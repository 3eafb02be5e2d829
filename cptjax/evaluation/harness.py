"""A model of ours as EleutherAI's lm-evaluation-harness asks for one: the optional extra `harness`.

Texts become tokens, and long ones are cut, as the harness's own Hugging Face backend (`HFLM`) does it on the exported folder:
the numbers are the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from cptjax.data.tokenizer import Tokenizer
from cptjax.errors import ConfigurationError
from cptjax.evaluation.continuations import Request, score_continuations
from cptjax.evaluation.generate import generate
from cptjax.evaluation.own_samples import Model
from cptjax.watching import Watch, unwatched

_NEW_TOKENS = 256  # of a task that does not say; HFLM's
_DRAWING = {"do_sample", "temperature", "top_p", "until", "max_gen_toks"}


class HarnessModel(TemplateLM):
    """`model` behind the harness's interface. Every process of a job calls it with the same requests."""

    def __init__(self, model: Model, tokenizer: Tokenizer, mesh: Mesh, watch: Watch = unwatched):
        """Wraps a model that is loaded.

        Raises:
            ConfigurationError: a tokenizer without a token that begins or ends a text.
        """
        super().__init__()
        if tokenizer.start is None:
            raise ConfigurationError(
                f"{tokenizer.name} has neither BOS nor EOS, and the harness begins a text without a context with one."
            )
        self._model, self._tokenizer, self._mesh, self._watch = model, tokenizer, mesh, watch

    @property
    def eot_token_id(self) -> int:
        """EOS, or what begins a text where there is none."""
        return self._tokenizer.start if self._tokenizer.eos is None else self._tokenizer.eos

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context."""
        return self._tokenizer.start

    @property
    def max_length(self) -> int:
        """The positions that the model was made for."""
        return self._model.config.maximum_length

    @property
    def tokenizer_name(self) -> str:
        """Tells this tokenizer from others."""
        return self._tokenizer.fingerprint

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """`string`'s tokens, with BOS as the tokenizer adds it unless the text begins with it, or is not to have it."""
        tokens, bos = self._tokenizer.encode(string), self._tokenizer.bos
        if add_special_tokens is None:
            written = self._tokenizer.decode([self.prefix_token_id])
            add_special_tokens = not (written and string.startswith(written))
        return [bos, *tokens] if add_special_tokens and self._tokenizer.adds_bos else tokens

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """(log p(continuation | context), whether it is what greedy decoding writes) of each request."""
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        asked = []
        for text, context, continuation in requests:
            if not continuation or len(continuation) > self.max_length:
                shown = repr(text[1][:60]) if text else "a window"
                raise ConfigurationError(
                    f"the harness asks for a continuation of {len(continuation)} tokens ({shown}): "
                    f"this model reads 1 to {self.max_length}."
                )
            context = context[max(0, len(context) + len(continuation) - (self.max_length + 1)) :]
            asked.append(Request(tuple(context), tuple(continuation)))
        with jax.set_mesh(self._mesh):
            answers = score_continuations(self._model, self._mesh, asked, self._watch)
        for (text, *_), answer in zip(requests, answers, strict=True):
            if text is not None:
                self.cache_hook.add_partial("loglikelihood", text, tuple(answer))
        return [tuple(answer) for answer in answers]

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[float]:
        """log p of each whole text, in windows of `max_length` of which the next has one token of context and is full."""
        windows, counts = [], []
        for (string,) in (request.args for request in requests):
            tokens = self.tok_encode(string)
            found = map(
                make_disjoint_window, get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, 1)
            )
            windows += (each := [(None, *window) for window in found])
            counts.append(len(each))
        scored = iter(self._loglikelihood_tokens(windows))
        return [sum(next(scored)[0] for _ in range(count)) for count in counts]

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[str]:
        """What follows each context, up to the first of the texts that end it.

        Raises:
            ConfigurationError: a setting that is not `do_sample`, `temperature`, `top_p`, `until` or a number of tokens.
        """
        results = [""] * len(requests)
        groups: dict[tuple[int, float, float], list[int]] = {}
        ends, asked = {}, [request.args for request in requests]
        for i, (_, settings) in enumerate(asked):
            drawing, ends[i] = self._drawing(settings)
            groups.setdefault(drawing, []).append(i)
        for (new, temperature, top_p), members in groups.items():
            room = self.max_length - new
            prompts = [self.tok_encode(asked[i][0])[-room:] or [self.prefix_token_id] for i in members]
            given = (self._model.params, self._model.config, self._model.numerics, self._mesh, prompts, new)
            settings = {"temperature": temperature, "top_p": top_p, "eos": self.eot_token_id, "watch": self._watch}
            texts = generate(*given, **settings)
            for i, prompt, tokens in zip(members, prompts, texts, strict=True):
                made = [token for token in tokens[len(prompt) :] if token < self._tokenizer.size]
                made = made[:-1] if made and made[-1] == self.eot_token_id else made
                results[i] = postprocess_generated_text(self._tokenizer.decode(made), ends[i], None)
                self.cache_hook.add_partial("generate_until", asked[i], results[i])
        return results

    def _drawing(self, settings: Mapping[str, Any]) -> tuple[tuple[int, float, float], list[str]]:
        """(new tokens, temperature, top_p), and the texts that end a text."""
        found = normalize_gen_kwargs(dict(settings), _NEW_TOKENS)
        if unknown := sorted(name for name, value in found.items() if name not in _DRAWING and value is not None):
            raise ConfigurationError(
                f"the task asks for generation with {unknown[0]} = {found[unknown[0]]!r}, which cptjax does not do.\n"
                f"  It does {', '.join(sorted(_DRAWING))}."
            )
        new = found["max_gen_toks"]
        if not 0 < new < self.max_length:
            raise ConfigurationError(
                f"the task asks for {new} new tokens of a model that was made for {self.max_length} positions in all."
            )
        ends = handle_stop_sequences(found["until"], eos=self._tokenizer.decode([self.eot_token_id]))
        if not found["do_sample"]:
            return (new, 0.0, 1.0), ends
        return (new, float(found.get("temperature", 0.0)), float(found.get("top_p", 1.0))), ends
