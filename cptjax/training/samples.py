"""Prompts that a run continues now and then, for people to read what the model writes by then."""

import dataclasses
from collections.abc import Sequence

from cptjax.configuration.values import whole_number
from cptjax.data.tokenizer import Tokenizer
from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.models.decoder import check_reach


@dataclasses.dataclass(frozen=True)
class Samples:
    """What is continued, and when. It changes nothing of the training.

    Attributes:
        every: tokens between two times; None: never. The first and the last step are then always sampled.
        prompts: texts; "" is the beginning of any text.
        max_new_tokens: written after each of them, at most, greedily.
    """

    every: float | None = None
    prompts: Sequence[str] = ("Once upon a time",)
    max_new_tokens: float = 64

    def __post_init__(self):
        if self.every is None:
            return
        object.__setattr__(self, "every", whole_number(self.every, "SAMPLE_EVERY", minimum=1))
        object.__setattr__(self, "max_new_tokens", whole_number(self.max_new_tokens, "MAX_NEW_TOKENS", minimum=1))
        listed = isinstance(self.prompts, list | tuple) and all(isinstance(prompt, str) for prompt in self.prompts)
        if not listed or not self.prompts:
            raise ConfigurationError(
                f"SAMPLE_PROMPTS = {self.prompts!r}: it is a list of texts for the model to continue, or SAMPLE_EVERY = None."
            )

    def encoded(self, tokenizer: Tokenizer, config: DecoderConfig) -> list[list[int]]:
        """Each prompt's tokens, with what begins a document in the run's rows before them.

        Raises:
            ConfigurationError: a prompt of no tokens, or one whose continuation goes beyond learned positions.
        """
        start = [] if tokenizer.start is None else [tokenizer.start]
        prompts = [start + tokenizer.encode(prompt) for prompt in self.prompts]
        for text, tokens in zip(self.prompts, prompts, strict=True):
            if not tokens:
                raise ConfigurationError(
                    f"SAMPLE_PROMPTS has {text!r}, which is no token, and {tokenizer.name} has none that begins a text."
                )
            check_reach(
                config, len(tokens) - 1 + self.max_new_tokens, f"SAMPLE_PROMPTS: {text!r} and what follows it read"
            )
        return prompts
