"""A network's identity. Results are cached under it, so that they are never taken for those of other weights."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def model_hash(model: nn.Module | None) -> str:
    """Hex digest of a network's class and every tensor of its state (name, type, shape, bytes); '' for None."""
    if model is None:
        return ""
    digest = hashlib.sha256(type(model).__qualname__.encode())
    for name, tensor in sorted(model.state_dict().items()):
        data = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {data.dtype} {tuple(data.shape)}".encode())
        digest.update(data.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
