"""Generated samples by content: what made them names their file, so an interrupted evaluation goes on.

evaluation/<hash>.jsonl     first line: what made them, network calls, seconds; then one sample per line
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from didi_core.files import write_atomic
from didi_core.generate import Generated
from didi_core.types import NFE, Domain, Sample

FORMAT = "didi_core.samples/1"


def model_hash(model: nn.Module | None) -> str:
    """Hex digest of a network's class and of every tensor of its state (name, type, shape, bytes); '' for None."""
    if model is None:
        return ""
    digest = hashlib.sha256(type(model).__qualname__.encode())
    for name, tensor in sorted(model.state_dict().items()):
        data = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {data.dtype} {tuple(data.shape)}".encode())
        digest.update(data.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@runtime_checkable
class HasSampleCache(Protocol):
    """A domain that carries samples of its bundled teacher in a cache folder, so that a run need not draw them."""

    sample_cache: Path


def carried_samples(domain: Domain) -> list[Sample]:
    """All samples that a domain carries; none for one that carries none."""
    if not isinstance(domain, HasSampleCache):
        return []
    rows = [line for path in sorted(domain.sample_cache.glob("*.jsonl")) for line in path.read_text().splitlines()[1:]]
    return [Sample(row["text"], row["id"]) for row in map(json.loads, rows)]


@dataclass(frozen=True)
class SampleCache:
    """Sets of samples in ``folder``, each under the hash of the description of its making; no folder, no cache."""

    folder: Path | None

    def path(self, making: Mapping[str, object]) -> Path | None:
        """File of the set that was made this way."""
        if self.folder is None:
            return None
        text = json.dumps({"format": FORMAT, **making}, sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.jsonl"

    def load(self, making: Mapping[str, object]) -> Generated | None:
        """The set, or None when it is absent or not whole (it is then made again)."""
        path = self.path(making)
        if path is None or not path.is_file():
            return None
        try:
            head, *rows = [json.loads(line) for line in path.read_text().splitlines()]
            samples = [
                Sample(row["text"], row["id"], tuple(row["tokens"]) if row["tokens"] is not None else None, row["info"])
                for row in rows
            ]
            if head["format"] != FORMAT or head["count"] != len(samples):
                return None
            return Generated(samples, NFE(**head["nfe"]), float(head["seconds"]))
        except (ValueError, KeyError, TypeError):
            return None

    def save(self, making: Mapping[str, object], made: Generated) -> None:
        """Write a set; the file is complete or absent."""
        path = self.path(making)
        if path is None:
            return
        head = {
            "format": FORMAT,
            "making": dict(making),
            "count": len(made.samples),
            "nfe": {"denoiser": made.nfe.denoiser, "scorer": made.nfe.scorer},
            "seconds": made.seconds,
        }
        rows = [
            {
                "id": s.id,
                "text": s.text,
                "tokens": list(s.tokens) if s.tokens is not None else None,
                "info": dict(s.info),
            }
            for s in made.samples
        ]
        write_atomic(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in (head, *rows)))
