"""How often the host would wait for a GPU, counted on a CPU: by the operations that bring a number to the host."""

from __future__ import annotations

from collections import Counter
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from didi_core.diffusion.walk import Trunk
from didi_core.models.attention import Layout
from didi_core.models.dit import DiT, DiTConfig
from didi_core.objectives.cross_entropy import masked_nll
from didi_core.objectives.rewards.base import corrupt
from didi_core.training.objective import Terms, on_host
from didi_core.types import Vocabulary

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "equal"}
PADDED, PLAIN = Vocabulary(8, pad=0, bos=1), Vocabulary(8)


class Waits(TorchDispatchMode):
    """Counts them within, and calls of ``tolist``, which are no operations of torch's dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self._tolist = Tensor.tolist

    def __enter__(self) -> Waits:
        waits = self

        def tolist(tensor: Tensor) -> Any:
            waits.seen["tolist"] += 1
            return waits._tolist(tensor)

        self._patched = mock.patch.object(Tensor, "tolist", tolist)
        self._patched.start()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patched.stop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.seen[name] += name in WAITING or by_mask
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        return sum(self.seen.values())


def network(vocabulary: Vocabulary) -> DiT:
    torch.manual_seed(0)
    return DiT(DiTConfig(hidden=16, layers=3, heads=2, conditioning=8), vocabulary).eval()


def rows(*lengths: int) -> Tensor:
    return torch.tensor([[8] * length + [0] * (max(lengths) - length) for length in lengths])


@pytest.mark.parametrize(
    ("vocabulary", "tokens", "most"), [(PLAIN, rows(5, 5), 0), (PADDED, rows(5, 5), 1), (PADDED, rows(5, 3), 1)]
)
def test_a_call_of_the_trunk_waits_once_and_only_where_there_may_be_padding(
    vocabulary: Vocabulary, tokens: Tensor, most: int
) -> None:
    model = network(vocabulary)
    with Waits() as waits, torch.no_grad():
        model.trunk(tokens)
    assert waits.total == most, waits.seen


def test_the_index_of_a_packed_batch_is_that_of_its_positions() -> None:
    for lengths in ([5, 3, 0, 4], [1, 5], [0, 0], [2, 2]):
        layout = Layout(torch.tensor(lengths), 5)
        expected = (torch.arange(5) < torch.tensor(lengths)[:, None]).flatten().nonzero().squeeze(1)
        assert torch.equal(layout.index, expected) and layout.count == sum(lengths)


def test_corruption_never_waits_and_masks_at_least_one_position() -> None:
    with Waits() as waits:
        noised = corrupt(torch.full((6, 5), 3), torch.ones(6), PADDED, torch.Generator().manual_seed(0))
    assert waits.total == 0, waits.seen
    assert torch.equal(noised.masked.sum(1), torch.ones(6, dtype=torch.long))


def test_positions_are_found_once_for_a_cross_entropy() -> None:
    model, clean = network(PLAIN), torch.full((2, 5), 3)
    with Waits() as waits:
        masked_nll(model, rows(5, 5), clean).sum().backward()
    assert waits.total == 1, waits.seen


def test_scalars_come_together() -> None:
    with Waits() as waits:
        shown = on_host({"loss": torch.tensor(1.5), "kl": torch.tensor(0.25, dtype=torch.float64)})
    assert shown == {"loss": 1.5, "kl": 0.25} and waits.total == 1


def test_what_a_loss_measured_is_fetched_after_its_backward_pass() -> None:
    weight = torch.tensor(2.0, requires_grad=True)
    loss = weight.square()
    with Waits() as waits:
        terms = Terms(loss, {"loss": loss, "given": 3.0, "weight": weight})
        terms.loss.backward()
        assert waits.total == 0
        assert dict(terms.scalars) == {"loss": 4.0, "given": 3.0, "weight": 2.0} and waits.total == 1
    assert not any(value.requires_grad for value in terms.measured.values() if isinstance(value, Tensor))


def test_the_first_call_of_a_rollout_does_not_ask_what_changed() -> None:
    trunk = Trunk(network(PLAIN), torch.Generator(), remembers=False)
    with Waits() as waits, torch.no_grad():
        trunk(rows(5, 5))
    assert waits.seen["_local_scalar_dense"] == 0 and waits.total == 1, waits.seen  # the distinct rows
