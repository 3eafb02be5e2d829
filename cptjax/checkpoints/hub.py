"""Checkpoints by their name on the Hugging Face Hub: a snapshot in its cache, downloaded where there is a network.

A name is `organisation/name`, or `organisation/name@revision` (a branch, a tag, a commit). What is opened is pinned: the
commit that the revision stood for becomes part of the name that a lineage keeps. Only what cptjax reads is downloaded:
safetensors, config.json, the tokenizer's files; never a pickle.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from etils import epath

from cptjax.checkpoints.hugging_face import INDEX, SINGLE, TOKENIZER_FILES
from cptjax.errors import ConfigurationError

# As the Hub allows them; a name has just one slash, and neither part begins or ends with a dot or a dash.
_NAME = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
_WANTED = ("config.json", "model*.safetensors", INDEX, *TOKENIZER_FILES)
_NEVER = ("*/*", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class Snapshot(NamedTuple):
    """A commit of a repository, as files: `name` is "organisation/name@<commit>", `folder` where they lie."""

    name: str
    folder: epath.Path


def is_hub_name(path: str) -> bool:
    """Whether `path`, which is no folder here, could be a name on the Hub: not beside what is in a folder that is here."""
    match = _NAME.fullmatch(path)
    return match is not None and (match["revision"] is not None or not epath.Path(path).parent.exists())


def find_snapshot(name: str) -> Snapshot:
    """The snapshot that `name` stands for: from the cache (HF_HUB_CACHE), else from the Hub.

    With a network a branch is looked up anew each time; a full commit is taken from the cache as it is. Without one the
    cache's own last look counts.

    Raises:
        ConfigurationError: it is neither in the cache nor to be had, or has no safetensors.
    """
    repository, folder = _downloaded(name, _WANTED)
    if not (folder / SINGLE).exists() and not (folder / INDEX).exists():
        _refuse_without_safetensors(repository, folder)
    return Snapshot(f"{repository}@{folder.name}", folder)


def find_tokenizer(given: str) -> str:
    """The folder or file of a tokenizer: `given` itself, or, where nothing is there, the snapshot that it names on the Hub.

    Of a snapshot the tokenizer's files alone are downloaded.

    Raises:
        ConfigurationError: it is a name on the Hub by its form, and neither in the cache nor to be had.
    """
    if epath.Path(given).exists() or not is_hub_name(given):
        return given
    return str(_downloaded(given, ("config.json", *TOKENIZER_FILES))[1])


def _downloaded(name: str, wanted: Sequence[str]) -> tuple[str, epath.Path]:
    """The repository that a name is of, and the folder that holds what is wanted of its snapshot."""
    from huggingface_hub import snapshot_download  # here: most runs never need it

    match = _NAME.fullmatch(name)
    try:
        folder = snapshot_download(
            match["name"], revision=match["revision"], allow_patterns=list(wanted), ignore_patterns=list(_NEVER)
        )
    # A network fails in more ways than have a common base: the Hub's own errors, the HTTP library's, the system's.
    except Exception as error:
        raise ConfigurationError(_not_found(name, error)) from error
    return match["name"], epath.Path(folder)


def _refuse_without_safetensors(repository: str, folder: epath.Path) -> None:
    """A repository of pickles: they were not downloaded, so its list of files is asked what there is.

    Raises:
        ConfigurationError: the list names pickles.
    """
    from huggingface_hub import HfApi

    try:
        files = HfApi().list_repo_files(repository, revision=folder.name)
    except Exception:  # offline: the folder itself is looked at next, and says what is missing
        return
    pickles = sorted(file for file in files if file.endswith(_PICKLES))
    if pickles:
        raise ConfigurationError(
            f"'{repository}' on the Hub holds its weights only as pickles ({pickles[0]}), which can run any code when "
            "opened; cptjax reads safetensors only, and has not downloaded it.\n  Look for a revision with "
            f"{SINGLE} (often '{repository}@refs/pr/1'), or convert it where you trust it."
        )


def _not_found(name: str, error: Exception) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        why = "the Hub gives it only to accounts that agreed to its terms: agree there, then `hf auth login`"
    elif isinstance(error, RepositoryNotFoundError):
        why = "the Hub has no such repository, or a private one: `hf auth login`"
    elif isinstance(error, LocalEntryNotFoundError):
        why = f"it is not (whole) in the cache {HF_HUB_CACHE}, and the Hub cannot be reached or HF_HUB_OFFLINE is set"
    else:
        why = f"{type(error).__name__}: {(str(error).strip() or 'no more is known').splitlines()[0][:300]}"
    return (
        f"There is nothing at '{name}': no folder of that name here, and as a name on the Hugging Face Hub:\n  {why}.\n"
        "  Name a folder: download the repository where there is a network (`hf download "
        f"{name.partition('@')[0]} --local-dir FOLDER`), and give FOLDER."
    )
