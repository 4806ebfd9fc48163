"""Copies without values: they are filled from the teacher, whatever was added to them, and nothing else is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from didi_core.errors import DidiError
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.masters import with_master_weights
from didi_core.models.noise import with_noise
from didi_core.models.scorer import scorer_from_trunk
from didi_core.streams import seeded
from didi_core.training.outlines import fill, is_outline, on_device, outlined
from didi_core.types import Vocabulary

CPU = torch.device("cpu")


def teacher() -> DiT:
    with seeded(0, "small"):
        return DiT(DiTConfig(hidden=16, layers=2, heads=2, conditioning=8), Vocabulary(size=7, pad=6)).eval()


MADE = {
    "copy": lambda network: with_noise(network, 0, 0),
    "noise": lambda network: with_noise(network, 3, 0),
    "scorer": lambda network: scorer_from_trunk(network, 1),
    "scorer without norm": lambda network: scorer_from_trunk(network, 0, normed=False),
}


@pytest.mark.parametrize("kind", MADE)
def test_a_filled_outline_is_the_copy(kind: str) -> None:
    """With the same names in the same order, which is that of AdamW's numbers in a checkpoint."""
    network = teacher()
    with seeded(0, "head"):
        plain = MADE[kind](network)
    with seeded(0, "head"):
        made = on_device(MADE[kind](outlined(network)), CPU)
    assert is_outline(made) and not is_outline(network)
    fill(made, [network])
    assert not is_outline(made)
    ours, theirs = made.state_dict(), plain.state_dict()
    assert [*ours] == [*theirs] and all(torch.equal(ours[name], theirs[name]) for name in ours)
    asked = [[(name, p.requires_grad) for name, p in one.named_parameters()] for one in (made, plain)]
    assert asked[0] == asked[1]
    assert {p.data_ptr() for p in made.parameters()}.isdisjoint(p.data_ptr() for p in network.parameters())


def test_an_outline_keeps_its_own_types() -> None:
    network = teacher().to(torch.bfloat16)
    made = with_master_weights(outlined(network))
    fill(made, [network])
    for one, other in zip(made.parameters(), network.parameters(), strict=True):
        assert one.dtype == torch.float32 and torch.equal(one.to(torch.bfloat16), other)


def test_what_the_teacher_lacks_is_named() -> None:
    made = outlined(nn.Sequential(nn.Linear(3, 5)))
    for other in (nn.Linear(3, 5), nn.Sequential(nn.Linear(3, 4))):
        with pytest.raises(DidiError, match=r"which has no 0.weight of shape \(5, 3\). Start it with para"):
            fill(made, [other])
