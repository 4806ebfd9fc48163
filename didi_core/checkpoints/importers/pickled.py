"""Torch files from unknown sources: tensors and plain values are read, but none of their objects or code is used.

Lightning files hold more than weights: the run's configuration as omegaconf containers, the tokenizer, paths. torch's
restricted reader (``weights_only=True``) replaces each class from the packages below by an inert stand-in, which only
keeps the object's data. A file with any other name is refused before it is read.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from didi_core.errors import InputError, one_line
from didi_core.storage.unpacked import check_archive, unpacked_limit

# Packages whose objects training frameworks store beside weights. They get stand-ins; nothing is imported.
DESCRIPTIONS = (
    "omegaconf.",
    "transformers.",
    "tokenizers.",
    "lightning.",
    "pytorch_lightning.",
    "lightning_fabric.",
    "typing.",
    "pathlib.",
    "numpy.",
)
BUILTINS = ("bool", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "set", "str", "tuple")
PLAIN = {f"builtins.{name}" for name in BUILTINS} | {
    "_codecs.encode",
    "collections.defaultdict",
    "collections.deque",
    "datetime.datetime",
    "datetime.timedelta",
}
MAPPINGS = ("AttributeDict", "defaultdict")  # classes that are filled like a dict, and become one
DEPTH = 32  # largest depth of a configuration; more means a cycle


class Inert:
    """Stands for an object of a class that is not imported."""

    origin = ""

    def __new__(cls, *args: Any, **_: Any) -> Inert:
        made = super().__new__(cls)
        made.__dict__["args"] = args
        return made

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state


def load_pickled(path: Path) -> dict[str, Any]:
    """The dictionary in a torch file.

    Raises:
        InputError: the file needs a class that is not allowed, is damaged, or holds no dictionary.
    """
    archived = zipfile.is_zipfile(path)
    if archived:
        check_archive(path)
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if archived else []
        strange = sorted(name for name in names if not (name in PLAIN or name.startswith(DESCRIPTIONS)))
        if strange:
            raise _refused(path, ", ".join(strange[:5]))
        known: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [(_stand_in(name), name) for name in names]
        with warnings.catch_warnings(), torch.serialization.safe_globals(known):
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # such a file is read, or refused below
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=archived)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)|unrecognized function ([^\n]+)", str(error))
        raise _refused(path, next(filter(None, found.groups())) if found else "instructions of a bare pickle") from None
    except KeyError:  # an instruction that no pickle has
        raise InputError(f"{path} cannot be read as a torch file: it is neither an archive nor a pickle.") from None
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"{path} cannot be read as a torch file: {one_line(error)}") from None
    if not isinstance(held, Mapping):
        raise InputError(f"{path} holds a {type(held).__name__}, not a dictionary of weights.")
    return dict(held)


def check_extent(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise InputError for tensors much larger than their file, such as one number that is expanded to a billion."""
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    if size > unpacked_limit(path):
        raise InputError(
            f"{path}: its {path.stat().st_size:,} bytes hold tensors of {size:,}: these are no weights. Get it again."
        )


def _refused(path: Path, what: str) -> InputError:
    return InputError(
        f"{path} is refused: reading it would run code or import what no checkpoint needs ({what[:300]}). "
        "Ask its author for safetensors."
    )


def _stand_in(name: str) -> Callable[..., Any]:
    """The stand-in for a name."""
    last = name.rsplit(".", 1)[-1]
    if last == "AttributeDict":
        return dict
    if last in MAPPINGS:
        return lambda *_: {}
    return type(last, (Inert,), {"origin": name})


def plain(value: Any, depth: int = 0) -> Any:
    """A configuration as plain containers: omegaconf's nodes become values, and interpolations stay text.

    Other stand-ins become the name of their class.
    """
    if depth > DEPTH:
        return "..."
    if isinstance(value, Inert):
        state = value.__dict__.get("state")
        if isinstance(state, tuple):  # (dict, slots)
            state = {key: item for part in state if isinstance(part, Mapping) for key, item in part.items()}
        if isinstance(state, Mapping):
            for content in ("_content", "_val"):
                if content in state:
                    return plain(state[content], depth + 1)
        return value.origin
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, type) and issubclass(value, Inert):
        return value.origin
    return value
