"""A checkpoint's weights as the tensors of a Hugging Face folder, one at a time, whether it is such a folder or a run."""

import jax
import numpy as np

from cptjax.checkpoints import hugging_face
from cptjax.checkpoints.source import OpenedCheckpoint
from cptjax.errors import CptjaxError
from cptjax.models.families.family import Correspondence
from cptjax.models.model import abstract_parameters
from cptjax.sharding.mesh import build_mesh

_BLOCK = 1 << 20  # numbers that are looked at together


class TensorReader:
    """The tensors of one source, without rows of padding; each is checked to be finite.

    Of a Hugging Face folder one tensor is read at a time; of a run, whose checkpoint holds all layers' tensors of a weight as
    one array, one such array.

    Raises:
        CptjaxError: the source is damaged, or a tied checkpoint's own head differs from its embedding.
    """

    def __init__(self, source: OpenedCheckpoint):
        self.source = source
        self.held: dict[str, np.ndarray] = {}  # of a run: the weights that were read last, all their layers
        if source.store is None:
            self.folder = hugging_face.open_folder(source.model_folder)
            hugging_face.check_tied_head(self.folder)
        else:
            source.store.verify(source.step)
            self.abstract = abstract_parameters(source.config, build_mesh({"fsdp": 1}, jax.devices()[:1]))

    def dtype(self, name: str) -> np.dtype:
        """What `read` gives of the tensor `name` of theirs: as it lies in the folder, float32 of a run."""
        return np.dtype(np.float32) if self.source.store is not None else self.folder.tensors[name].specs[name].dtype

    def read(self, entry: Correspondence, index: int) -> np.ndarray:
        """Tensor number `index` of the entry's, flat; perhaps read-only, perhaps a view.

        Raises:
            CptjaxError: it holds values that are not finite.
        """
        theirs = entry.names[index]
        if self.source.store is None:
            place, values = self.folder.tensors[theirs].path, self.folder.tensors[theirs].read(theirs).reshape(-1)
        else:
            place, arrays = self.source.path, self._arrays(entry)
            parts = (array[entry.place(index)] for array in arrays)
            shapes = entry.together.values()
            cut = (part[tuple(map(slice, shape))] for part, shape in zip(parts, shapes, strict=True))
            values = entry.layout.to_theirs(*cut).reshape(-1)
        if not all(np.isfinite(values[start : start + _BLOCK]).all() for start in range(0, values.size, _BLOCK)):
            raise CptjaxError(f"{place}: tensor {theirs!r} holds values that are not finite (NaN or inf).")
        return values

    def _arrays(self, entry: Correspondence) -> list[np.ndarray]:
        """The weights of ours that stand in the entry's tensors together."""
        source = self.source
        if list(self.held) != list(entry.together):
            self.held.clear()  # let go before the next are read
            for name in entry.together:
                stored = f"{source.weights_entry}.{name}"
                self.held[name] = np.asarray(source.store.restore_array(source.step, stored, self.abstract[name]))
        return list(self.held.values())
