"""Opening whatever a job is pointed at: a Hugging Face folder, a run's folder, or one checkpoint in it.

A run's folder keeps the model's `config.json` and its tokenizer in `model/`, in the form of the Hugging Face folder it came
from, so that one reader serves all three.
"""

import dataclasses
import functools
import json
from typing import Any

from etils import epath
from jax.sharding import Mesh

from cptjax.checkpoints import hugging_face, loading
from cptjax.checkpoints.digests import DIGESTS, digest_file
from cptjax.checkpoints.hub import find_snapshot, is_hub_name
from cptjax.checkpoints.lineage import Lineage, Origin, Parameters
from cptjax.checkpoints.store import PARAMETERS, CheckpointStore
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.files import read_json
from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import Family
from cptjax.models.families.registry import family_of
from cptjax.models.model import Params, abstract_parameters, parameter_counts, repadded

MODEL = "model"  # a run's folder of config.json and tokenizer files
CHECKPOINTS = "checkpoints"
AVERAGE = "average"  # the name, behind a run's or a step's folder, of the exponential average of its weights


@dataclasses.dataclass(frozen=True)
class OpenedCheckpoint:
    """A checkpoint that was found and understood; no weights are read yet.

    Attributes:
        path: as it was named, a name on the Hub with the commit it stood for; step: of a run, None for a Hugging Face folder.
        config, family, original_config: the model, how its family is written, and the config.json it came with.
        model_folder: where config.json and the tokenizer's files are.
        store: the run's checkpoints; None for a Hugging Face folder.
        average: whether its weights are the average that the run kept beside those it trained.
    """

    path: epath.Path
    step: int | None
    config: DecoderConfig
    family: Family
    original_config: dict[str, Any]
    model_folder: epath.Path
    store: CheckpointStore | None
    average: bool = False

    def load_parameters(self, mesh: Mesh, config: DecoderConfig | None = None) -> Params:
        """The weights, float32, sharded over `mesh`; with as many rows of padding as `config` has (None: as it was saved)."""
        config = self.config if config is None else config
        if self.store is None:
            return loading.load_parameters(hugging_face.open_folder(self.model_folder), mesh, config)
        abstract = abstract_parameters(self.config, mesh)
        return repadded(self.store.restore_parameters(self.step, abstract, which=self.weights_entry), config, mesh)

    @property
    def weights_entry(self) -> str:
        """What these weights are called in a run's saved state."""
        return AVERAGE if self.average else PARAMETERS

    @functools.cached_property
    def identity(self) -> str:
        """Tells these weights from others. Of a Hugging Face folder every byte is read, once."""
        if self.store is None:
            return self.lineage.origin.identity
        digests = digest_file(self.store.path_of(self.step) / DIGESTS).sha256
        return f"{digests}/{AVERAGE}" if self.average else digests

    @functools.cached_property
    def metadata(self) -> dict[str, Any]:
        """What the run saved beside the arrays; empty for a Hugging Face folder."""
        return {} if self.store is None else self.store.metadata(self.step)

    @functools.cached_property
    def lineage(self) -> Lineage:
        """Where the weights come from. For a Hugging Face folder its tensors are read once, to be identified."""
        if self.store is not None:
            return Lineage.from_json(self.metadata["lineage"])
        identity = hugging_face.identity(hugging_face.open_folder(self.model_folder))
        return Lineage(Origin("hugging_face", str(self.path), identity, counted(self.config)))


def counted(config: DecoderConfig) -> Parameters:
    """The model's parameter counts, as a lineage holds them."""
    return Parameters(**parameter_counts(config)._asdict())


def open_checkpoint(path: epath.PathLike, step: int | None = None) -> OpenedCheckpoint:
    """Opens a Hugging Face folder, a run's folder (its newest step, or `step`), or `<run>/checkpoints/<step>`.

    What is no path here may be a name on the Hugging Face Hub ("organisation/name" or "organisation/name@revision").
    `<run>/average` and `<run>/checkpoints/<step>/average` are the average of the weights, where the run kept one (AVERAGE).

    Raises:
        ConfigurationError: nothing is there, or something that is no checkpoint.
        CptjaxError: a checkpoint is there and damaged.
    """
    named, path = str(path), epath.Path(path).expanduser()
    if path.name == AVERAGE and not path.exists() and path.parent.exists():
        return _average(open_checkpoint(path.parent, step), path)
    if not path.exists() and is_hub_name(named):
        snapshot = find_snapshot(named)
        return dataclasses.replace(open_checkpoint(snapshot.folder, step), path=epath.Path(snapshot.name))
    if not path.exists():
        raise ConfigurationError(
            f"There is nothing at '{path}'.\n  Name a Hugging Face folder, or the folder of a run."
        )
    if path.parent.name == CHECKPOINTS and path.name.isdigit():
        if step is not None and step != int(path.name):
            raise ConfigurationError(f"CHECKPOINT = '{path}' is one step, and STEP = {step} another.")
        return open_checkpoint(path.parent.parent, int(path.name))
    if not (path / CHECKPOINTS).is_dir():
        if step is not None:
            raise ConfigurationError(f"STEP = {step}, but '{path}' is not the folder of a run: it holds no steps.")
        folder = hugging_face.open_folder(path)
        return OpenedCheckpoint(path, None, folder.decoder_config, folder.family, folder.config, path, None)
    store = CheckpointStore(path / CHECKPOINTS)
    found = store.latest() if step is None else step
    if found is None:
        raise ConfigurationError(f"The run at '{path}' has not saved a checkpoint yet.")
    metadata = store.metadata(found)  # a missing step is refused here, with the steps there are
    original = read_json(path / MODEL / "config.json")
    family = family_of(original, str(path / MODEL / "config.json"))
    config = family.read_config(original, str(path / MODEL / "config.json"))
    config = dataclasses.replace(config, padded_vocabulary=metadata["model"].get("padded_vocabulary"))
    if config.to_json() != metadata["model"]:
        raise CptjaxError(
            f"{path / MODEL / 'config.json'} is not the model that step {found} was saved from: it was changed.\n"
            f"  The step has {metadata['model']}."
        )
    return OpenedCheckpoint(path, found, config, family, original, path / MODEL, store)


def _average(opened: OpenedCheckpoint, path: epath.Path) -> OpenedCheckpoint:
    """The average that was kept beside the weights of `opened`."""
    if opened.store is None or not opened.store.holds(opened.step, AVERAGE):
        raise ConfigurationError(
            f"There is no average of weights at '{path}'.\n  A run keeps one, from its beginning, with AVERAGE = 0.999."
        )
    return dataclasses.replace(opened, path=path, average=True)


def write_model_folder(run: epath.Path, original_config: dict[str, Any], tokenizer: epath.Path) -> None:
    """Writes `<run>/model`: config.json and the tokenizer's files, aside and then renamed.

    For a run that has saved nothing yet: what an earlier start, perhaps from another base, left there is replaced.

    Args:
        tokenizer: the folder that the tokenizer's files are copied from, or a tokenizer file.
    """
    destination = run / MODEL
    aside = run / f"{MODEL}.partial"
    if aside.exists():
        aside.rmtree()
    aside.mkdir(parents=True)
    for file in hugging_face.tokenizer_files(tokenizer):
        # A tokenizer given as a file of any name gets the name it is looked for under.
        file.copy(aside / (f"tokenizer{file.suffix}" if file == epath.Path(tokenizer) else file.name))
    (aside / "config.json").write_text(json.dumps(original_config, indent=2) + "\n", encoding="utf-8")
    if destination.exists():
        destination.rmtree()
    aside.rename(destination)
