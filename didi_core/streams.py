"""Random streams by name: each purpose and step has a generator of its own, so a resumed run needs no saved state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on every name: ``derive_seed(0, "rollout", 17)``."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for one purpose, the same on every run and machine of the same kind."""
    stream = torch.Generator(device=device)
    stream.manual_seed(derive_seed(seed, *names))
    return stream


@contextmanager
def seeded(seed: int, *names: str | int, device: torch.device | None = None) -> Iterator[None]:
    """Within, torch's global random state is a stream of this name: layers draw their initial weights and their dropout
    from it.

    The previous state is restored afterwards.

    Args:
        device: one whose state changes beside the CPU's; None where networks are made, on the CPU, and then moved.
    """
    cuda = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(derive_seed(seed, *names))
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(derive_seed(seed, *names))
        yield
