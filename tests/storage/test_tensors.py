"""Tensors for safetensors: in storages of their own, and not copied where they are so already."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from didi_core.storage.tensors import on_host


def test_a_tensor_in_a_storage_of_its_own_is_not_copied() -> None:
    held = {"a": torch.ones(3, 4), "b": torch.zeros(2, dtype=torch.bfloat16), "c": torch.tensor(1.0)}
    assert {name: value.data_ptr() for name, value in on_host(held).items()} == {
        name: value.data_ptr() for name, value in held.items()
    }


def test_what_shares_a_storage_is_written_whole(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    held = {
        "whole": whole, "tied": whole, "row": whole[1], "column": whole[:, 2], "turned": whole.T,
        "learnt": torch.nn.Parameter(whole[:2]), "one": whole[0, 3], "nothing": whole[3:],
    }  # fmt: skip
    made = on_host(held)
    save_file(made, tmp_path / "x.safetensors")  # refuses tensors that share memory
    read = load_file(tmp_path / "x.safetensors")
    assert {*read} == {*held}
    assert all(torch.equal(read[name], value.detach()) for name, value in held.items())
    made["tied"][0, 0] = -1.0
    assert whole[0, 0] == 0.0 == made["row"][0] - 4.0
