"""The states of a sharded training on disk, by torch.distributed.checkpoint (DCP): every process writes its shards.

States are read into whatever reads them: shards of as many processes, of another number, or whole tensors. Files of
a replicated training are read into shards by ``as_held``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, distribute_tensor

from didi_core.errors import DidiError, one_line
from didi_core.processes import Processes, together
from didi_core.storage.files import sha256

OPTIMISER = {"state", "param_groups"}  # keys of torch's state of an optimiser


def is_sharded(state: Mapping[str, Any]) -> bool:
    """Whether a state has shards in it."""
    return any(isinstance(value, DTensor) for value in _flat(state).values())


def write_shards(folder: Path, states: Mapping[str, Mapping[str, Any]], processes: Processes) -> dict[str, str]:
    """Write this process's shards of these states; all processes call it.

    Returns:
        SHA-256 of every file that was written, by any process.

    Raises:
        DidiError: a process could not write.
    """
    flat = {f"{name}/{key}": value for name, state in states.items() for key, value in _flat(state).items()}
    group = processes.waiting
    with together():  # what fails in a process itself is a CheckpointException
        _checked(lambda: save(flat, storage_writer=FileSystemWriter(folder), process_group=group))
    own = [*folder.glob(f"__{processes.rank}_*"), *(folder.glob(".metadata") if processes.first else [])]
    gathered = processes.gather({path.name: sha256(path) for path in own})
    return {name: digest for one in gathered for name, digest in one.items()}


def stored_names(folder: Path) -> set[str]:
    """Names of the states that were written as shards; none where there are no shards."""
    return {key.partition("/")[0] for key in _metadata(folder)}


def read_shards(folder: Path, name: str, part: Any) -> dict[str, Any]:
    """A state that was written as shards, as ``part`` holds it: in its own shards, or whole.

    Raises:
        ValueError: it has other names or shapes.
    """
    prefix = f"{name}/"
    stored = {key.removeprefix(prefix): about for key, about in _metadata(folder).items() if key.startswith(prefix)}
    wanted = _template(part, stored)
    if wanted.keys() != stored.keys():
        raise ValueError(f"its names differ: {sorted(wanted.keys() ^ stored.keys())[:3]}")
    for key, value in wanted.items():
        if value.shape != stored[key].size:
            raise ValueError(f"size mismatch for {key}: {tuple(stored[key].size)} is stored, not {tuple(value.shape)}")
    into = {prefix + key: value for key, value in wanted.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # each process reads for itself
        _checked(lambda: load(into, storage_reader=FileSystemReader(folder), no_dist=True))
    return _nested(part, {key: into[prefix + key] for key in wanted})


def as_held(state: dict[str, Any], part: Any) -> dict[str, Any]:
    """A state of whole tensors, in shards where ``part`` holds shards."""
    flat = _flat(state)
    wanted = _template(part, flat)
    if not any(isinstance(value, DTensor) for value in wanted.values()):
        return state
    return _nested(part, {key: _like(value, wanted.get(key)) for key, value in flat.items()})


def _like(value: Tensor, held: Tensor | None) -> Tensor:
    if not isinstance(held, DTensor) or held.shape != value.shape:
        return value
    whole = value.to(held.device, held.dtype)
    return distribute_tensor(whole, held.device_mesh, held.placements, src_data_rank=None)


def _metadata(folder: Path) -> dict[str, Any]:
    if not (folder / ".metadata").exists():
        return {}
    return dict(FileSystemReader(folder).read_metadata().state_dict_metadata)


def _flat(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state by name; those of an optimiser by number of the parameter and name."""
    if state.keys() != OPTIMISER:
        return {key: value for key, value in state.items() if isinstance(value, Tensor)}
    return {f"{i}/{key}": value for i, one in state["state"].items() for key, value in one.items()}


def _template(part: Any, stored: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors like those that ``part`` holds; for an optimiser, which has none before its first step, those stored."""
    if not isinstance(part, torch.optim.Optimizer):
        return _flat(part.state_dict())
    parameters = [p for group in part.param_groups for p in group["params"]]
    made: dict[str, Tensor] = {}
    for key in stored:
        number, _, name = key.partition("/")
        if int(number) < len(parameters):
            made[key] = torch.zeros(()) if name == "step" else torch.zeros_like(parameters[int(number)].detach())
    return made


def _nested(part: Any, flat: Mapping[str, Tensor]) -> dict[str, Any]:
    """Inverse of ``_flat``. The settings of an optimiser are its own: they follow from the run's configuration."""
    if not isinstance(part, torch.optim.Optimizer):
        return dict(flat)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        number, _, name = key.partition("/")
        state.setdefault(int(number), {})[name] = value
    return {"state": state, "param_groups": part.state_dict()["param_groups"]}


def _checked(act: Callable[[], object]) -> None:
    """Turn DCP's error, which is no Exception, into ours. Raises DidiError."""
    try:
        act()
    except CheckpointException as error:
        rank, (cause, _) = next(iter(error.failures.items()))
        raise DidiError(f"process {rank} failed at a sharded checkpoint: {one_line(cause)}") from cause
