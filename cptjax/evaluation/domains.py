"""Held-out loss and bits per byte of every source of a run."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from jax.sharding import Mesh

from cptjax.data.prepare import PreparedSource
from cptjax.data.rows import RowReader
from cptjax.evaluation.loss import SourceLoss, build_row_nats, evaluate_rows
from cptjax.models.config import DecoderConfig
from cptjax.models.model import Params
from cptjax.models.numerics import Numerics


class DomainLosses:
    """The held-out rows of each source and the one compiled function that scores them."""

    def __init__(
        self,
        prepared: Mapping[str, PreparedSource],
        config: DecoderConfig,
        numerics: Numerics,
        mesh: Mesh,
        batch_rows: int,
    ):
        """Opens the held-out rows; sources that hold none out are left out. `batch_rows` are scored at a time."""
        self._readers = {name: RowReader(source.validation) for name, source in prepared.items() if source.validation}
        self._row_nats = build_row_nats(config, numerics)
        self._mesh, self._batch_rows = mesh, batch_rows

    def evaluate(self, params: Params, between: Callable[[], None] = lambda: None) -> dict[str, SourceLoss]:
        """Each source's loss under `params`, over all of its held-out rows.

        between: called before each batch of rows; what it raises ends the evaluation.
        """

        def read(reader: RowReader, rows: Sequence[int]):
            between()
            return reader.read(rows)

        return {
            name: evaluate_rows(
                self._row_nats,
                params,
                partial(read, reader),
                len(reader),
                reader.manifest.bytes,
                self._batch_rows,
                self._mesh,
            )
            for name, reader in self._readers.items()
        }


def as_metrics(losses: Mapping[str, SourceLoss]) -> dict[str, float]:
    """The numbers as they are logged: `validation/<source>/loss` and `validation/<source>/bits_per_byte`."""
    return {
        f"validation/{name}/{metric}": value
        for name, found in losses.items()
        for metric, value in (("loss", found.loss), ("bits_per_byte", found.bits_per_byte))
    }
