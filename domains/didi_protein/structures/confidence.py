"""Confidences from files beside a structure, and whether pLDDT goes from 0 to 1 or from 0 to 100."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from didi_core.errors import InputError
from didi_core.storage.files import read_json
from didi_core.storage.unpacked import read_arrays

SMALL, LARGE = "0 to 1", "0 to 100"
LARGEST = {SMALL: 1.0, LARGE: 100.0}
SLACK = 1.005  # of a largest value, as rounding writes it


def read_values(path: Path) -> Mapping[str, Any]:
    """What a JSON or npz file holds, by name. Raises InputError for a damaged one."""
    return _values(path, path.stat().st_mtime_ns, path.stat().st_size)


@lru_cache(maxsize=4)
def _values(path: Path, changed: int, size: int) -> Mapping[str, Any]:
    """One file holds several kinds of confidence: read once, as long as it is the same."""
    del changed, size
    return read_arrays(path) if path.suffix == ".npz" else read_json(path, "Predict the design again.")


def number(values: Mapping[str, Any], name: str, path: Path) -> float | None:
    """One number, also from an array of one; None where it is absent or undefined. Raises InputError for no number."""
    value = values.get(name)
    if value is None:
        return None
    try:
        found = float(np.asarray(value, dtype=np.float64).reshape(()) if np.size(value) == 1 else value)
    except (TypeError, ValueError):
        raise InputError(f"{path}: {name} is {str(value)[:60]}, not a number.") from None
    return found if np.isfinite(found) else None


def share(values: Mapping[str, Any], name: str, path: Path) -> float | None:
    """A score from 0 to 1, such as pTM. Raises InputError for one outside."""
    found = number(values, name, path)
    if found is not None and not 0 <= found <= 1:
        raise InputError(f"{path}: {name}={found:g} is outside of 0 to 1. Is this file one of confidences?")
    return found


def array(values: Mapping[str, Any], name: str, path: Path) -> Float[np.ndarray, "..."] | None:
    """An array of numbers, without leading dimensions of one; None where it is absent."""
    if name not in values:
        return None
    try:
        found = np.asarray(values[name], dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{path}: {name} is not an array of numbers.") from None
    while found.ndim > 1 and found.shape[0] == 1:
        found = found[0]
    return found


def scale_of(largest: float, where: object) -> str:
    """The scale of confidences by their largest value. Raises InputError where it can be neither."""
    for scale, limit in LARGEST.items():
        if largest <= limit * SLACK:
            return scale
    raise InputError(
        f"{where}: the B-factor column goes up to {largest:g}, so it holds no confidence from 0 to 1 or 0 to 100. "
        "Is this a prediction, and not an experiment's structure?"
    )
