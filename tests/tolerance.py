"""How near two computations of the same numbers must come, in one place.

Kernels, ways of cutting a batch, and numbers of threads add the same terms in different orders, so results differ in
their last bits, and by how much depends on the processor. Rounding follows the size of the terms of a sum, not that of
the sum: an entry near zero among entries near ten is as uncertain as they are. So the bound is ``ROUNDING`` epsilons of
the largest entry, for the coarser of the two types.

A sum of n terms is off by about sqrt(n) epsilons, and the networks of the tests chain some twenty sums of up to 512
terms. On a processor with AVX-512, and with the kernels that it would run with AVX2, without either, and with two and
four threads, the largest difference was 24 epsilons. ``ROUNDING`` is ten times that: 3e-5 of the largest entry in
float32, where a token that leaks into a neighbour's sequence changes a hundredth or more.

Exact equality (``torch.equal``, hashes, bytes) is for what the same kernels compute from the same shapes on the same
machine with the same number of threads, and for whole numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

ROUNDING = 256


def close(
    actual: Any, expected: Any, *, dtype: torch.dtype | None = None, size: float | None = None, name: str = ""
) -> None:
    """Assert that two tensors, arrays or (nested) lists of numbers differ by no more than rounding.

    Args:
        dtype: what they were computed in; the coarser of the tensors' own, or float32 where neither is a tensor.
        size: of the terms that were added, where these are larger than what is expected; its largest entry.
        name: of the numbers, for the message.
    """
    kinds = [x.dtype for x in (actual, expected) if isinstance(x, Tensor)] if dtype is None else [dtype]
    epsilon = max(torch.finfo(kind).eps for kind in kinds or [torch.float32])
    ours, theirs = (doubles(x) for x in (actual, expected))
    largest = theirs[theirs.isfinite()].abs().max().item() if size is None and theirs.isfinite().any() else size or 0.0
    message = (lambda text: f"{name}: {text}") if name else None
    torch.testing.assert_close(ours, theirs, rtol=0, atol=ROUNDING * epsilon * largest, equal_nan=True, msg=message)


def doubles(numbers: Any) -> Tensor:
    return numbers.detach().cpu().double() if isinstance(numbers, Tensor) else torch.tensor(np.array(numbers)).double()


def near(expected: float) -> Any:
    """What a number that was computed in float32 must equal, for ``==``; of a sum without cancellation."""
    return pytest.approx(expected, rel=ROUNDING * torch.finfo(torch.float32).eps)
