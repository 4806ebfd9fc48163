"""Identities of networks and of settings. Results are cached under them, so that they are never taken for others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

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


def json_hash(value: object, default: Callable[[Any], Any] | None = None) -> str:
    """SHA-256 of a value as JSON, whatever the order of its keys. default: as in ``json.dumps``."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=default).encode()).hexdigest()
