"""The Hugging Face hub: what could be a name of it, folders fetched from it, and folders uploaded to it.

Only weights, JSON and cards are fetched, and nothing of them is run. Everything goes through ``huggingface_hub``, which
decides the address (``HF_ENDPOINT``), the cache (``HF_HOME``) and the token (``HF_TOKEN``, or that of ``hf auth
login``).
"""

from __future__ import annotations

import re
from pathlib import Path

from didi_core.config import user_path
from didi_core.errors import InputError, one_line

PICKLED = (".ckpt", ".pt", ".pth", ".bin")
WEIGHTS = ("*.safetensors", "*.bin")  # of a hub folder, the first kind that it has
BESIDE = ("*.json", "README.md")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")


def is_hub_id(source: str) -> bool:
    """Whether a name could be one of the hub: ``owner/name`` or ``owner/name@revision``."""
    return HUB_ID.fullmatch(source) is not None and not source.endswith((*PICKLED, ".safetensors"))


def locate(source: str, key: str = "source") -> Path:
    """The file or folder of a source, fetched from the hub if it is an id (``owner/name[@revision]``).

    Raises:
        InputError: it is none of these, or the hub cannot be reached; ``key`` is the setting to change.
    """
    path = user_path(source)
    if path.exists():
        return path
    if not is_hub_id(source):
        raise InputError(
            f"{key}={source}: "
            "there is no such file or folder, and it is not a hub id (owner/name or owner/name@revision)."
        )
    return fetch(source, key)


def on_disk(source: str) -> Path | None:
    """The path of a source, or where a hub id lies in the local cache; None for one that is not there."""
    path = user_path(source)
    return in_cache(source) if not path.exists() and is_hub_id(source) else path


def in_cache(source: str) -> Path | None:
    """A hub folder with weights in the local cache; None if it is not there. Nothing is fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    name, revision = _named(source)
    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if any(any(folder.glob(weights)) for weights in WEIGHTS) else None


def _named(source: str) -> tuple[str, str | None]:
    """Name and revision of a hub id."""
    name, _, revision = source.partition("@")
    return name, revision or None


def fetch(source: str, key: str) -> Path:
    """A hub folder's weights, configuration and card; no code. Raises InputError, with the key to change."""
    for weights in WEIGHTS:
        folder = _snapshot(source, key, [*BESIDE, weights])
        if list(folder.glob(weights)):
            return folder
    raise InputError(f"{key}={source}: the hub folder holds neither safetensors nor bin files. Name one that does.")


def fetch_config(source: str, key: str) -> Path:
    """The path of a hub folder's ``config.json``, which is all that is fetched; it may not be there."""
    return _snapshot(source, key, ["config.json"]) / "config.json"


def _snapshot(source: str, key: str, patterns: list[str]) -> Path:
    """A folder with those files of a hub folder that have such names. Raises InputError, with the key to change."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    name, revision = _named(source)
    away = f"Download it elsewhere and give {key}=<folder>."
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except GatedRepoError:
        raise InputError(f"{key}={source} is gated: accept its terms on the hub and log in. {away}") from None
    except RevisionNotFoundError:
        raise InputError(
            f"{key}={source}: {name} has no revision {revision!r}. "
            f"Leave @{revision} out for its newest."
        ) from None
    except RepositoryNotFoundError:
        raise InputError(f"{key}={source}: no such file or folder is here, and no such model on the hub.") from None
    except (HfHubHTTPError, OSError) as error:
        path = Path(source)
        here = f" (the folder {path.parent} has no {path.name})" if path.parent.is_dir() else ""
        why = f"the hub cannot be reached ({_reason(error)})"
        raise InputError(f"{key}={source} is not here{here}, and {why}. {away}") from None


def check_repository(name: str, key: str = "to") -> None:
    """Raise InputError for a name that the hub would not take as ``owner/name``."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # its lazy module lists it

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(
            f"{key}={name} is not a name on the hub ({_reason(error)}). Write owner/name, or ./{name} for a folder."
        ) from None


def upload(folder: Path, name: str, private: bool) -> str:
    """Upload a folder as a model, which is made if it is not there. Returns its address.

    Raises:
        InputError: nobody is logged in, the hub refuses, or it cannot be reached; the folder stays.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of whichever httpx it uses

    by_hand = f"The folder is complete: {folder}. Upload it with `hf upload {name} {folder}`"
    if get_token() is None:
        raise InputError(
            f"to={name}: no token of the Hugging Face hub is here, so nothing was uploaded. {by_hand} after `hf auth "
            "login`, or set HF_TOKEN and repeat the command."
        )
    api = HfApi()
    try:
        address = str(api.create_repo(name, private=private, exist_ok=True))
        api.upload_folder(folder_path=folder, repo_id=name, commit_message="didi push")
    except (HTTPError, OSError) as error:
        raise InputError(f"to={name}: the hub did not take it ({_reason(error)}). {by_hand} later.") from None
    return address


def _reason(error: Exception) -> str:
    """The start of a library's message, on one line."""
    return one_line(error, 160).rstrip(". ")
