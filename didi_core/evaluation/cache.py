"""Cached results of an evaluation: samples under a hash of their settings, statistics under one of metric and samples.

An interrupted evaluation continues, and nothing is computed twice.

evaluation/<hash>.parts/         batches of a set that is being drawn, or was when the evaluation stopped
evaluation/<hash>.jsonl          first line: settings, network calls, seconds; then one sample per line
evaluation/statistics/<hash>.npy per-sample statistics of a costly metric
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from didi_core.domain.abilities import HasSampleCache
from didi_core.errors import warn
from didi_core.sampling.generate import Generated
from didi_core.storage.files import write_atomic
from didi_core.storage.fingerprint import json_hash
from didi_core.types import NFE, Domain, Metric, Sample

FORMAT = "didi_core.samples/1"
DIGEST = 32  # bytes of a SHA-256
OLDER = ("format", "making", "count", "nfe", "seconds", "rates")  # what the first line held before it had a hash


def carried_samples(domain: Domain) -> list[Sample]:
    """All samples that a domain ships; an empty list if it ships none."""
    if not isinstance(domain, HasSampleCache):
        return []
    rows = [line for path in sorted(domain.sample_cache.glob("*.jsonl")) for line in path.read_bytes().splitlines()[1:]]
    return [Sample(row["text"], row["id"]) for row in map(json.loads, rows)]


@dataclass(frozen=True)
class SampleCache:
    """Sets of samples in ``folder``, each under the hash of all that decides it. Without a folder nothing is cached."""

    folder: Path | None

    def path(self, making: Mapping[str, object]) -> Path | None:
        """File of the set with these settings; None without a folder."""
        if self.folder is None:
            return None
        return self.folder / f"{json_hash({'format': FORMAT, **making})[:24]}.jsonl"

    def parts(self, making: Mapping[str, object]) -> Path | None:
        """Folder of the finished batches of a set that is being drawn; None without a folder."""
        path = self.path(making)
        return None if path is None else path.with_suffix(".parts")

    def load(self, making: Mapping[str, object]) -> Generated | None:
        """The set. None if the file is absent, or has changed since it was written, which is reported."""
        path = self.path(making)
        if path is None or not path.is_file():
            return None
        try:
            head, *rows = [json.loads(line) for line in path.read_bytes().splitlines()]
            digest = head.pop("sha256", None)  # older files have none
            same = head["making"] == json.loads(json.dumps(making)) and head["count"] == len(rows)
            older = digest is None and head.keys() <= {*OLDER}
            if head["format"] != FORMAT or not same or not (older or digest == json_hash([head, rows])):
                raise ValueError("its content has changed since it was written")
            if older:
                warn(f"{path} is of an older version, without a hash: whether its samples have changed is not checked.")
            samples = [
                Sample(row["text"], row["id"], tuple(row["tokens"]) if row["tokens"] is not None else None, row["info"])
                for row in rows
            ]
            rates = tuple(float(rate) for rate in head.get("rates", ()))
            shutil.rmtree(path.with_suffix(".parts"), ignore_errors=True)  # left where a command was killed
            return Generated(samples, NFE(**head["nfe"]), float(head["seconds"]), rates)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            warn(f"{path} is damaged ({error}): its samples are drawn again.")
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
            "rates": list(made.rates),
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
        lines = ({**head, "sha256": json_hash([head, rows])}, *rows)
        write_atomic(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


@runtime_checkable
class HasIdentity(Protocol):
    """A costly metric that names what its statistics depend on beside the samples; "" turns caching off."""

    @property
    def identity(self) -> str: ...


@dataclass(frozen=True)
class StatisticsCache:
    """Statistics of metrics with an identity, under a hash of it and the texts. Without a folder none is cached."""

    folder: Path | None

    def statistics(self, metric: Metric, samples: Sequence[Sample]) -> np.ndarray:
        """The metric's statistics [n, k] in float64, read from the cache where possible."""
        if self.folder is None or not isinstance(metric, HasIdentity) or not metric.identity:
            return np.asarray(metric.statistics(samples), dtype=np.float64)
        path = self._path(metric.name, metric.identity, samples)
        kept = _load(path, len(samples))
        if kept is not None:
            return kept
        rows = np.asarray(metric.statistics(samples), dtype=np.float64)

        content = io.BytesIO()
        np.save(content, rows)
        write_atomic(path, content.getvalue() + hashlib.sha256(content.getvalue()).digest())
        return rows

    def _path(self, name: str, identity: str, samples: Sequence[Sample]) -> Path:
        digest = json_hash([name, identity, [sample.text for sample in samples]])
        return (self.folder or Path()) / "statistics" / f"{digest[:24]}.npy"


def _load(path: Path, n: int) -> np.ndarray | None:
    """An array of n rows, followed by its hash. None if it is absent or has changed, which is reported."""
    if not path.is_file():
        return None
    content = path.read_bytes()
    array, digest = content[:-DIGEST], content[-DIGEST:]
    if hashlib.sha256(array).digest() == digest:
        rows: np.ndarray = np.load(io.BytesIO(array), allow_pickle=False)
        if rows.ndim == 2 and len(rows) == n:
            return rows
    warn(f"{path} is damaged, or older: its statistics are computed again.")
    return None
