"""Weights in safetensors: written atomically, and read only if their hash matches and all values are finite."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from didi_core.errors import InputError
from didi_core.storage.files import sha256, write_atomic
from didi_core.storage.tensors import on_host


def write_weights(path: Path, module: nn.Module, leave_out: tuple[str, ...] = ()) -> str:
    """Write a network's tensors. Returns the SHA-256 of the file."""
    tensors = on_host({name: value for name, value in module.state_dict().items() if name not in leave_out})
    write_atomic(path, lambda partial: save_file(tensors, partial))
    return sha256(path)


def read_weights(path: Path, digest: Any) -> dict[str, Tensor]:
    """The tensors of a file whose hash a card records.

    Raises:
        InputError: the file is missing, damaged, has another hash, or holds values that are not finite.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing. Get the folder again.")
    if sha256(path) != digest:
        raise InputError(
            f"{path} does not match the hash in card.json: it is damaged or of another model. Get the folder again."
        )
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is damaged: {error}. Get the folder again.") from None
    check_finite(tensors, path)
    return tensors


def count_parameters(path: Path) -> int:
    """The numbers in a file of weights; only its header is read."""
    with safe_open(path, "numpy") as held:
        return sum(math.prod(held.get_slice(name).get_shape()) for name in held.keys())  # noqa: SIM118


def check_sizes(
    build: Callable[[], nn.Module],
    layers: int,
    held: Mapping[str, Tensor],
    where: str,
    leave_out: tuple[str, ...] = (),
    named: Callable[[str], str] = str,
) -> None:
    """Raise InputError where ``build`` makes another network than the tensors are of, before it takes any memory.

    Args:
        layers: of the network. leave_out: names of its tensors that are not among those held.
        named: the name that a tensor of the network has among those held; several may be the rows of one.
    """
    if layers > len(held):
        raise InputError(
            f"{where} describes a network of {layers:,} layers, and its weights are {len(held):,} tensors: one of the "
            "two is damaged. Get the folder again."
        )
    with torch.device("meta"):
        own = build().state_dict()
    rows = defaultdict[str, list[Tensor]](list)
    for name, value in own.items():
        if name not in leave_out:
            rows[named(name)].append(value)
    check_names({name: parts[0] if len(parts) == 1 else torch.cat(parts) for name, parts in rows.items()}, held, where)


def check_names(wanted: Mapping[str, Tensor], held: Mapping[str, Tensor], where: str) -> None:
    """Raise InputError, with their names, for tensors that are missing, unexpected or of another shape."""
    faults = []
    missing, unexpected = [n for n in wanted if n not in held], [n for n in held if n not in wanted]
    for what, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            faults.append(f"{what} tensors {', '.join(names[:5])}{more}")
    faults += [
        f"{name} has shape {tuple(held[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in held and held[name].shape != value.shape
    ][:5]
    if faults:
        raise InputError(f"{where} does not fit a network of its sizes: {'; '.join(faults)}.")


def check_finite(tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Raise InputError, with names, for weights that are not finite: their network would silently write nonsense."""
    for name, value in tensors.items():
        if value.is_floating_point() and not _all_finite(value):
            count = int((~torch.isfinite(value)).sum())
            raise InputError(
                f"{path}: {count:,} of {value.numel():,} values of {name} are nan or inf. Its training diverged, or "
                "the file was damaged before its hash was taken: get the weights again."
            )


def _all_finite(value: Tensor) -> bool:
    """Whether no number is nan or inf, by the two bounds: one pass, without the arrays that ``isfinite`` makes."""
    return not value.numel() or bool(torch.isfinite(torch.stack(torch.aminmax(value))).all())
