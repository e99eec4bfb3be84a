"""The Hugging Face Hub, through `huggingface_hub`: its cache, HF_TOKEN, HF_HUB_OFFLINE and HF_ENDPOINT apply."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path


def explain(error: Exception, repo: str) -> str:
    """Why `repo` could not be had from the Hub, and what to do about it.

    Args:
        error: what `huggingface_hub` raised. Errors of the network are those of whichever HTTP client it uses.
        repo: the id, as the user wrote it.
    """
    from huggingface_hub import errors

    if isinstance(error, errors.HFValidationError):
        return f"{repo!r} is neither a folder nor an id of the Hugging Face Hub (name or org/name)"
    if isinstance(error, errors.GatedRepoError):
        return f"{repo!r} is gated: ask for access at https://huggingface.co/{repo} and set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo!r} has no such revision on the Hugging Face Hub"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no folder {repo!r}, nor such an id on the Hugging Face Hub (a private one needs HF_TOKEN)"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return (
            f"there is no folder {repo!r}, the Hugging Face cache does not hold such an id, and the Hub cannot be "
            "reached (is HF_HUB_OFFLINE set?)"
        )
    return f"{repo!r} could not be had from the Hugging Face Hub: {type(error).__name__}: {error}"


def cached_folder(repo: str, names: Sequence[str]) -> Path | None:
    """The folder of the Hub's local cache that holds any of the files `names` of `repo`, if there is one."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repo, name) for name in names)
    return next((Path(path).parent for path in found if isinstance(path, str)), None)


def weights(repo: str) -> Mapping[str, tuple[str, Sequence[int]]]:
    """The type and shape of each tensor of a model, by ranged requests for the headers of its safetensors files."""
    from huggingface_hub import HfApi

    api = HfApi()
    api.auth_check(repo)  # the next call takes a repository that is not there, or gated, for one without weights
    files = api.get_safetensors_metadata(repo).files_metadata.values()
    return {name: (info.dtype, info.shape) for file in files for name, info in file.tensors.items()}


def first_file(repo: str, names: Sequence[str]) -> Path | None:
    """The first of the files `names` that `repo` has, from the cache or the Hub; None if it has none of them.

    Raises:
        LocalEntryNotFoundError: none is cached and the Hub cannot be reached.
    """
    from huggingface_hub import errors, hf_hub_download

    unreachable = None
    for name in names:
        try:
            return Path(hf_hub_download(repo, name))
        except errors.LocalEntryNotFoundError as error:
            unreachable = error
        except errors.EntryNotFoundError:
            continue
    if unreachable is not None:
        raise unreachable
    return None


def file_sizes(repo: str, revision: str | None) -> Mapping[str, int]:
    """The bytes of each file of `repo`, and nothing at all when the Hub cannot be asked."""
    from huggingface_hub import HfApi

    with suppress(Exception):  # whatever is wrong, downloading finds it out too and tells
        files = HfApi().model_info(repo, revision=revision, files_metadata=True).siblings or ()
        return {file.rfilename: file.size or 0 for file in files}
    return {}


def snapshot(repo: str, revision: str | None, names: Sequence[str]) -> Path:
    """The folder of the Hub's local cache with those of the files `names` that `repo` has, fetched where needed."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repo, revision=revision, allow_patterns=list(names)))
