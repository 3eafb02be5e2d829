"""cptjax from Python, as a notebook calls it: jobs as the command line runs them, and checkpoints to score and continue texts.

Nothing is computed here: `run` is the command in this process, `Model` calls what the jobs `score` and `generate` call.
"""

import contextlib
import dataclasses
import gzip
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cptjax import main
from cptjax.configuration.flags import Command, parse_command
from cptjax.errors import ConfigurationError, CptjaxError

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

    from cptjax.checkpoints.source import OpenedCheckpoint
    from cptjax.configuration.configured import Configured
    from cptjax.models.numerics import Numerics

_LEFT_IN = ("OUTPUT_DIR", "OUTPUT")  # the macros that say where a job leaves what it makes


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a job was, and where it left what it made.

    Attributes:
        job: its name; command: what one would type for the same.
        path: OUTPUT_DIR, or OUTPUT where the job writes one file; None where it only prints.
    """

    job: str
    command: str
    path: str | None

    def read(self, name: str = "") -> Any:
        """A file of the folder (or the file, without a name): JSON as it is, JSON lines as a list, anything else as text.

        Raises:
            CptjaxError: there is no such file.
        """
        from etils import epath

        if self.path is None:
            raise CptjaxError(f"the job {self.job!r} wrote nothing: it had neither OUTPUT_DIR nor OUTPUT.")
        path = epath.Path(self.path).expanduser() / name
        if not path.is_file():
            there = sorted(each.name for each in path.parent.iterdir()) if path.parent.is_dir() else ["nothing"]
            raise CptjaxError(f"there is no file {path}.\n  Beside it: {', '.join(there)}")
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text, kind = content.decode("utf-8"), path.name.removesuffix(".gz").rpartition(".")[2]
        if kind == "jsonl":
            return [json.loads(line) for line in text.splitlines()]
        return json.loads(text) if kind == "json" else text

    def metrics(self, *names: str) -> list[dict[str, Any]]:
        """The lines of a run's metrics.jsonl that have all of `names`: `metrics("loss")` is a line a step."""
        from cptjax.reporting.metrics import read_metrics

        lines = read_metrics(os.path.join(os.path.expanduser(self.path or ""), "metrics.jsonl"))
        return [line for line in lines if all(name in line for name in names)]


def run(*gin_files: str | os.PathLike, dry_run: bool = False, flags: Sequence[str] = (), **macros: Any) -> Outcome:
    """Runs a job in this process, exactly as `python -m cptjax.main --gin_file=... --gin.MACRO=VALUE` would.

    Gin files are looked for from the current folder and in the checkout that cptjax is installed from. What the job
    prints is printed; a finished job called again says so, and one that was stopped (the kernel's interrupt is Ctrl-C) goes on.

    Args:
        dry_run: say what would be done, and start nothing.
        flags: of the command, as they are typed: "--allow_imports=my_laws", "--gin.LAW=@my_laws.MyLaw()".
        macros: by name, as Python values; `**{"config.DecoderConfig.vocabulary": 2048}` sets a parameter.

    Raises:
        ConfigurationError: the command or a gin file is wrong; nothing has been started.
        CptjaxError: the job failed, or was stopped by a signal with everything saved.
    """
    arguments = [f"--gin_file={os.fspath(name)}" for name in gin_files]
    arguments += [f"--gin.{name}={_as_gin(value, name)}" for name, value in macros.items()]
    arguments += [*flags, *(["--dry_run"] if dry_run else [])]
    failed = None
    try:
        command = parse_command(arguments)
        configured = _configured(command)
        with _as_typed(arguments):
            code = main.run_configured(configured, command)
    except CptjaxError as error:
        failed = _of_its_own_class(error)
    # Raised out here the error does not hold on to what the job had open: its folder's lock would outlive it.
    if failed is not None:
        raise failed
    if isinstance(code, int) and code:
        raise CptjaxError(f"the job {configured.job!r} ended with exit code {code}; what it said stands above.")
    from cptjax.reporting.commands import shell

    typed = shell(["python", "-m", "cptjax.main", *arguments])
    return Outcome(configured.job, typed, _left_in(configured))


def _of_its_own_class(error: CptjaxError) -> CptjaxError:
    """The error as it was raised: on its way through gin it became one of a class that gin makes on the spot, below its own."""
    its = next(each for each in type(error).__mro__ if getattr(sys.modules[each.__module__], each.__name__, 0) is each)
    return its(main.message_of(error))


def _configured(command: Command) -> "Configured":
    from cptjax.configuration.configured import configure

    return configure(command)


def _as_gin(value: Any, name: str) -> str:
    """A Python value as gin reads it.

    Raises:
        ConfigurationError: it is no number, string, list, tuple, dict or None.
    """
    return repr(_plain(value, name))


def _plain(value: Any, name: str) -> Any:
    """Paths as strings and numpy's numbers as Python's, however deep."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {_plain(key, name): _plain(each, name) for key, each in value.items()}
    if isinstance(value, list | tuple):
        several = [_plain(each, name) for each in value]
        return tuple(several) if isinstance(value, tuple) else several
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    if not isinstance(value, str | bool | int | float | None):
        raise ConfigurationError(
            f"{name} = {value!r} is no plain value. Numbers, strings, lists and dicts are given as macros;\n"
            f"  what gin shall make is a flag: flags=['--gin.{name}=@module.function()']."
        )
    return value


@contextlib.contextmanager
def _as_typed(arguments: Sequence[str]) -> Iterator[None]:
    """Within it sys.argv is the command's: run folders keep it, and a notebook's own says nothing of the run."""
    before, sys.argv = sys.argv, [os.fspath(main.__file__), *arguments]
    try:
        yield
    finally:
        sys.argv = before


def _left_in(configured: "Configured") -> str | None:
    """OUTPUT_DIR or OUTPUT as the job reads it, through macros that only name another."""
    macros = configured.resolution.macros
    for name in _LEFT_IN:
        while name in macros:
            value = macros[name].binding.value
            if isinstance(value, str):
                return value
            name = getattr(value, "name", "")
    return None


class Model:
    """A checkpoint with its weights and its tokenizer, to be asked from Python.

    Attributes:
        opened: where it was found, its config and its lineage. tokenizer: None where the checkpoint has none.
    """

    def __init__(self, opened: "OpenedCheckpoint", numerics: "Numerics", mesh: Mapping[str, int] | None):
        from cptjax.data.tokenizer import fitting_tokenizer
        from cptjax.sharding.mesh import build_mesh

        self.opened, self._numerics, self._mesh = opened, numerics, build_mesh(mesh)
        self.tokenizer = fitting_tokenizer(opened.model_folder, opened.config.vocabulary, f"'{opened.path}'")
        self._params = opened.load_parameters(self._mesh)

    def __repr__(self) -> str:
        from cptjax.models.model import parameter_counts

        step = "" if self.opened.step is None else f", step {self.opened.step:,}"
        return f"<{self.opened.path}{step}: {parameter_counts(self.opened.config).total:,} parameters>"

    def tokens(self, text: str | Sequence[int]) -> list[int]:
        """Token ids of a text, with BOS where the tokenizer adds one and no EOS; ids are taken as they are.

        Raises:
            ConfigurationError: a text, and no tokenizer; or an id that is not in the vocabulary.
        """
        from cptjax.evaluation.sequences import checked_tokens, tokens_of

        if not isinstance(text, str):
            return checked_tokens(list(text), self.opened.config.vocabulary, "tokens")
        if self.tokenizer is None:
            raise ConfigurationError(f"'{self.opened.path}' has no tokenizer: give token ids instead of text.")
        return tokens_of(text, self.tokenizer)

    def score(self, texts: Sequence[str | Sequence[int]]) -> list["Float[np.ndarray, ' positions']"]:
        """Of each text the log-probabilities of its tokens but the first: natural logarithms, float32, as the job `score`."""
        import jax

        from cptjax.evaluation.score import score_sequences

        sequences = iter([self.tokens(text) for text in _several(texts)])
        with jax.set_mesh(self._mesh):
            return list(score_sequences(self._params, self.opened.config, self._numerics, self._mesh, sequences))

    def generate(
        self,
        prompts: Sequence[str | Sequence[int]],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[Any]:
        """Each prompt continued, the prompt included, as the job `generate`: text, or token ids where there is no tokenizer.

        Args:
            temperature: 0 takes the likeliest token; top_p: draw from the likeliest tokens with so much probability.
        """
        from cptjax.evaluation.generate import generate
        from cptjax.evaluation.sequences import text_of
        from cptjax.jobs.generate import end_of_text

        given = [self.tokens(prompt) for prompt in _several(prompts)]
        eos, drawing = end_of_text(self.opened, self.tokenizer), (max_new_tokens, temperature, seed)
        written = generate(
            self._params, self.opened.config, self._numerics, self._mesh, given, *drawing, eos=eos, top_p=top_p
        )
        return written if self.tokenizer is None else [text_of(tokens, self.tokenizer) for tokens in written]


def _several(texts: Sequence[Any]) -> Sequence[Any]:
    if isinstance(texts, str):
        raise ConfigurationError(f"a list of texts is wanted, and {texts[:40]!r} is one: write [{texts[:40]!r}].")
    return texts


def load_model(
    path: str | os.PathLike,
    step: int | None = None,
    numerics: "Numerics | None" = None,
    mesh: Mapping[str, int] | None = None,
) -> Model:
    """Loads what `CHECKPOINT` may name: a Hugging Face folder, a run's folder (its newest step, or `step`), a name on the Hub.

    Args:
        numerics: what products are computed in; float32 if it is not said. mesh: as MESH; None: all devices.

    Raises:
        ConfigurationError: nothing is there, or something that is no checkpoint.
        CptjaxError: a checkpoint is there and damaged.
    """
    from cptjax.checkpoints.source import open_checkpoint
    from cptjax.models.numerics import Numerics

    return Model(open_checkpoint(os.fspath(path), step), numerics or Numerics(), mesh)
