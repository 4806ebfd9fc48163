"""Tensors as safetensors writes them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def on_host(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in the memory of the host, each dense and in a storage of its own.

    A tensor that is so already is not copied: of a large network a copy takes as much memory as the network.
    """
    made: dict[str, Tensor] = {}
    storages = set[int]()
    for name, value in state.items():
        held = value.detach().cpu().contiguous()
        storage = held.untyped_storage()
        if storage.nbytes() != held.nbytes or storage.data_ptr() in storages:
            held = held.clone()
        storages.add(held.untyped_storage().data_ptr())
        made[name] = held
    return made
