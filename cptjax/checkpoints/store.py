"""Checkpoints of a training state: saved by Orbax in the background, believed only if every byte is as it was written.

    <directory>/000000300/state/         Orbax: one array for each leaf of the state, under its dotted name
    <directory>/000000300/metadata.json  what the caller gives (lineage, ...); names, shapes and dtypes of the arrays
    <directory>/000000300/digests.json   sha256 of all of the above: written last, and what makes the step count

A process may be killed at any moment. What it was writing then has no digests and is never taken for a checkpoint.
"""

import json
import logging
import os
import re
import threading
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from cptjax.checkpoints.digests import DIGESTS, Damage, first_damage, write_digests
from cptjax.checkpoints.failures import first_damage_on_any_host, first_line, quiet_orbax, save_failed
from cptjax.checkpoints.names import described, named_leaves, refuse_other_arrays
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.files import is_local, write_file

STATE = "state"
METADATA = "metadata.json"
FORMAT = 1
PARAMETERS = "params"  # the subtree of the state that `restore_parameters` reads
_REMOVING = "removing"  # what digests.json is called while its step is being deleted
_STEP = re.compile(r"\d{9,}")
_BARRIER_MILLISECONDS = 1_200_000  # as long as Orbax waits for its own
_log = logging.getLogger(__name__)


class CheckpointStore:
    """The checkpoints of one run, one folder a step.

    One store at a time writes a directory; any number may read it meanwhile. On several hosts every process makes the
    same calls; process 0 writes what is not arrays.
    """

    def __init__(self, directory: epath.PathLike, keep: int | None = 3):
        """Opens `directory` (created by the first save); the newest `keep` steps are kept, None keeps all.

        Raises:
            ConfigurationError: `keep` is below 1.
        """
        if keep is not None and keep < 1:
            raise ConfigurationError(
                f"keep = {keep}: a run keeps its newest checkpoint at least (None keeps them all)."
            )
        path = epath.Path(directory)
        self.directory = epath.Path(os.path.abspath(path)) if is_local(path) else path  # Orbax wants absolute paths
        self.keep = keep
        self._checkpointer: ocp.AsyncCheckpointer | None = None
        self._thread: threading.Thread | None = None
        self._error: CptjaxError | None = None
        self._saving: int | None = None
        self._saves = 0  # begun; the same on every host
        self._warned: set[str] = set()

    # --- writing ---

    def save(self, step: int, state: Any, metadata: Mapping[str, Any]) -> bool:
        """Starts saving `state`, a pytree of `jax.Array`, and returns once the arrays are off the devices.

        The caller may donate the arrays as soon as this returns. Waits for the save before, if it is still running.

        Args:
            step: the step counter; a step that is already whole is left as it is.
            state: e.g. `{"step": ..., "params": {name: array}, "optimizer": optax state}`.
            metadata: JSON-able; returned by `metadata(step)`.

        Returns:
            Whether a save was started (False: the step was already there, whole).

        Raises:
            CptjaxError: this save cannot start, or the one before failed in the background (a full disk, say).
        """
        self.wait()
        folder = self.path_of(step)
        if _is_whole(folder):
            return False
        arrays = named_leaves(state)
        content = {"format": FORMAT, "step": step, "arrays": described(arrays), "metadata": dict(metadata)}
        text = json.dumps(content, indent=1) + "\n"  # now, not in the background: the caller may change it later
        self._saving = step
        self._saves += 1
        try:
            if jax.process_index() == 0:
                self._remove_leftovers()
                folder.mkdir(parents=True, exist_ok=True)
            if self._checkpointer is None:
                quiet_orbax()
                self._checkpointer = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())
            self._checkpointer.save(folder / STATE, args=ocp.args.PyTreeSave(arrays))
        except Exception as error:
            self._saving = None
            raise save_failed(folder, error) from error
        self._thread = threading.Thread(target=self._commit, args=(folder, text), name=f"checkpoint {step}")
        self._thread.start()
        return True

    def wait(self) -> None:
        """Returns when nothing is being saved any more, on any host.

        Raises:
            CptjaxError: the last save failed; it does not count as a checkpoint.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = self._saving = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """Waits, then lets go of Orbax's threads."""
        try:
            self.wait()
        finally:
            if self._checkpointer is not None:
                self._checkpointer.close()
                self._checkpointer = None

    def __enter__(self) -> "CheckpointStore":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        """Waits for what is being saved, also where something else went wrong, so that no thread outlives the store.

        Raises:
            CptjaxError: a save failed; or the disk refused something else, which then says what is safe.
        """
        refused = isinstance(error, OSError)
        try:
            self.close()
        except CptjaxError as failed:
            if error is None or refused:
                raise failed from error
        if refused:
            whole = self._whole_steps()
            safe = f"step {whole[-1]:,} is saved and whole" if whole else "nothing had been saved yet"
            raise CptjaxError(
                f"the operating system refuses: {error}\n  {self.directory}: {safe}. Run the same command again."
            ) from error

    def _commit(self, folder: epath.Path, metadata: str) -> None:
        """In the background: Orbax's commit, then metadata, then digests, then the steps that are no longer kept."""
        try:
            try:
                self._checkpointer.wait_until_finished()
                if jax.process_index() == 0:
                    write_file(folder / METADATA, metadata)
                    write_digests(folder)
                    self._remove_old()
            finally:
                if jax.process_count() > 1:  # no process returns from `wait` before all see the same steps
                    wait_for_all = ocp.multihost.get_barrier_sync_fn()
                    wait_for_all(key=f"{folder} save {self._saves}", timeout_ms=_BARRIER_MILLISECONDS)
        except Exception as error:
            self._error = save_failed(folder, error)
            self._error.__cause__ = error

    def _remove_old(self) -> None:
        """Deletes all but the newest `keep` steps; one that cannot be deleted is no reason to stop a run."""
        for step in self._whole_steps()[: -self.keep] if self.keep is not None else []:
            try:
                _remove(self.path_of(step))
            except OSError as error:
                _log.warning("cannot delete the old checkpoint %s: %s", self.path_of(step), first_line(error))

    def _remove_leftovers(self) -> None:
        """Deletes what killed processes left unfinished; only the one writer calls this, and it writes nothing then."""
        for folder in self._folders():
            if not _is_whole(folder):
                folder.rmtree()

    # --- reading ---

    def path_of(self, step: int) -> epath.Path:
        """The folder of a step, there or not."""
        return self.directory / f"{step:09d}"

    def steps(self) -> list[int]:
        """The steps that can be restored, oldest first; unfinished ones are left out and named in a warning."""
        for folder in self._folders():
            ours = self._saving is not None and folder == self.path_of(self._saving)
            known = ours or folder.name in self._warned or _is_whole(folder) or (folder / _REMOVING).exists()
            if not known and folder.exists():  # it may have been deleted between two looks
                self._warned.add(folder.name)
                _log.warning("ignoring %s: its saving was never finished (no %s)", folder, DIGESTS)
        return self._whole_steps()

    def latest(self) -> int | None:
        """The newest step that can be restored, or None."""
        return max(self.steps(), default=None)

    def metadata(self, step: int) -> dict[str, Any]:
        """What `save` was given as metadata.

        Raises:
            CptjaxError: there is no such step, or its metadata is not what was written.
        """
        return self._content(step)["metadata"]

    def verify(self, step: int) -> None:
        """Reads every file of the step and compares it with its digest; hosts share the work and learn the same.

        Raises:
            CptjaxError: naming the first file that differs, and the newest older step that is intact.
        """
        if damage := first_damage_on_any_host(self._existing(step)):
            raise self._damaged(step, damage)

    def restore(self, step: int, abstract_state: Any, *, verify: bool = True, partial: bool = False) -> Any:
        """The state saved at `step`, bit for bit, in the structure, and on the devices, of `abstract_state`.

        Args:
            step: one of `steps()`.
            abstract_state: the same pytree as was saved, of `jax.ShapeDtypeStruct` with shardings (or of arrays whose
                place the restored ones take); the mesh may be another than the one it was saved from.
            partial: `abstract_state` is a dictionary of some of the state's entries; the others are not read.
            verify: check the digests first. Only a caller that has just verified this step says False.

        Raises:
            CptjaxError: there is no such step, or a file of it is damaged or missing (an intact step is named).
            ConfigurationError: the checkpoint holds other arrays than are asked for.
        """
        prefix = tuple(f"{name}." for name in abstract_state) if partial else ""
        restored = self._restore(step, named_leaves(abstract_state), verify, prefix)
        return jax.tree.unflatten(jax.tree.structure(abstract_state), restored.values())

    def holds(self, step: int, entry: str) -> bool:
        """Whether the state saved at `step` has an entry of this name."""
        return any(name.startswith(f"{entry}.") for name in self._content(step)["arrays"])

    def restore_parameters(
        self, step: int, abstract_parameters: Mapping[str, Any], *, verify: bool = True, which: str = PARAMETERS
    ) -> dict[str, jax.Array]:
        """The model's parameters alone, as `restore` gives them; nothing else is read into memory.

        which: "params", or "average" for their average.
        """
        return self.restore(step, {which: dict(abstract_parameters)}, verify=verify, partial=True)[which]

    def restore_array(self, step: int, name: str, abstract: jax.ShapeDtypeStruct) -> jax.Array:
        """One array of the state by its dotted name, e.g. "params.head.kernel"; for a caller that has verified the step."""
        return self._restore(step, {name: abstract}, verify=False, prefix=name)[name]

    def _restore(
        self, step: int, wanted: dict[str, Any], verify: bool, prefix: str | tuple[str, ...]
    ) -> dict[str, jax.Array]:
        """The arrays named in `wanted`, in its order; they must be all those whose name starts with `prefix`."""
        folder = self._existing(step)
        if verify:
            self.verify(step)
        refuse_other_arrays(folder, self._content(step)["arrays"], wanted, prefix)
        abstract = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for name, x in wanted.items()}
        places = ocp.checkpoint_utils.construct_restore_args(abstract)
        arguments = ocp.args.PyTreeRestore(item=abstract, restore_args=places, partial_restore=True)
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            try:
                restored = reader.restore(folder / STATE, args=arguments)
            except (OSError, ValueError) as error:
                raise CptjaxError(f"Step {step} in {self.directory} cannot be read.\n  {first_line(error)}") from error
        return {name: restored[name] for name in wanted}

    def _content(self, step: int) -> dict[str, Any]:
        """metadata.json of a step, checked."""
        folder = self._existing(step)
        if damage := first_damage(folder, [METADATA]):
            raise self._damaged(step, damage)
        content = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise CptjaxError(f"{folder / METADATA} has format {content['format']!r}; this version reads {FORMAT}.")
        return content

    def _existing(self, step: int) -> epath.Path:
        folder = self.path_of(step)
        if not _is_whole(folder):
            held = ", ".join(map(str, self.steps())) or "none"
            raise CptjaxError(f"There is no checkpoint of step {step} in {self.directory}.\n  Steps it holds: {held}.")
        return folder

    def _damaged(self, step: int, damage: Damage) -> CptjaxError:
        """The error for a damaged step, with the newest older one that is intact: what its reader needs next."""
        folder = self.path_of(step)
        advice = "No older step is intact: start the run anew in another folder."
        for older in reversed([s for s in self._whole_steps() if s < step]):
            if first_damage(self.path_of(older)) is None:
                advice = f"Step {older} is intact. To go on from it, move the damaged one away: {folder}"
                break
        return CptjaxError(
            f"The checkpoint of step {step} is damaged: {damage.file} {damage.reason}.\n"
            f"  {folder / damage.file}\n  {advice}"
        )

    def _folders(self) -> list[epath.Path]:
        if not self.directory.exists():
            return []
        folders = (entry for entry in self.directory.iterdir() if _STEP.fullmatch(entry.name))
        return sorted(folders, key=lambda folder: int(folder.name))

    def _whole_steps(self) -> list[int]:
        return [int(folder.name) for folder in self._folders() if _is_whole(folder)]


def _is_whole(folder: epath.Path) -> bool:
    return (folder / DIGESTS).exists()


def _remove(folder: epath.Path) -> None:
    """Deletes a step. It stops counting in one rename, so a kill in between leaves nothing that looks whole.

    What says that it is being deleted goes last, so that nobody takes the rest for a save that was never finished.
    """
    (folder / DIGESTS).replace(folder / _REMOVING)
    (folder / STATE).rmtree(missing_ok=True)
    (folder / METADATA).unlink(missing_ok=True)
    folder.rmtree()
