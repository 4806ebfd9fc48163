"""Loading transformers' models from folders: identified by their configuration, with every weight accounted for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from didi_core.checkpoints.judge import check_depth
from didi_core.checkpoints.quiet import quiet
from didi_core.errors import InputError
from didi_core.storage.files import read_json


def config_of(folder: Path, key: str) -> dict[str, Any]:
    """config.json of a model's folder; ``key`` is the setting that named it."""
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{key}={folder}: there is no config.json in it. Give a folder with one, beside the weights.")
    return read_json(path)


def load_strictly(kind: Any, folder: Path, unread: Sequence[str] = ()) -> Any:
    """A model from a folder, in single precision and eval mode; no code of the folder runs.

    Args:
        unread: parts of names that may be absent, because no result depends on them.

    Raises:
        InputError: files are damaged, or the weights are not those of the model.
    """
    check_depth(folder, str(folder))
    try:
        with quiet():
            model, info = kind.from_pretrained(
                folder, output_loading_info=True, local_files_only=True, ignore_mismatched_sizes=True
            )  # tensors that do not fit are refused below, with their names
    except Exception as error:  # a configuration and weights are checked by many libraries, each with errors of its own
        short = " ".join(str(error).split())[:300]
        raise InputError(f"{folder}: the model cannot be loaded ({short}).") from error
    lacking = [str(name) for name in info["missing_keys"] if not any(part in str(name) for part in unread)]
    misfits = [str(entry[0] if isinstance(entry, tuple) else entry) for entry in info["mismatched_keys"]]
    for names, what in ((lacking, "are not in it"), (misfits, "have another shape")):
        if names:
            shown = ", ".join(sorted(names)[:4]) + (" ..." if len(names) > 4 else "")
            raise InputError(
                f"{folder} holds weights of another model: {len(names)} tensors {what} ({shown}). Get it again."
            )
    return model.float().eval()
