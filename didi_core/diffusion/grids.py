"""Time grids: what share of the free positions is revealed after each of k denoiser calls.

A grid is a frozen dataclass; its fields are its own keys (``grid={kind: power, power: 2}``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from didi_core.catalogue import Catalogue
from didi_core.config import Choice, choose, split_choice
from didi_core.errors import InputError

Curve = Callable[[Tensor], Tensor]  # share visible -> mean NLL per masked token (nats), of one denoiser


class Grid(Protocol):
    """How many positions each call reveals.

    needs_curve: ``shares`` needs the NLL curve of the denoiser.
    """

    needs_curve: ClassVar[bool]

    def shares(self, steps: int, entropy_at: Curve | None = None) -> Float[Tensor, "k"]:
        """Share revealed after each of ``steps`` calls: ascending, exactly 1 at the end, in double precision.

        Args:
            entropy_at: mean NLL per masked token (nats) at given shares; it falls as the share grows.
        """
        ...


@dataclass(frozen=True)
class Uniform:
    """Every call reveals the same share."""

    needs_curve: ClassVar[bool] = False

    def shares(self, steps: int, entropy_at: Curve | None = None) -> Float[Tensor, "k"]:
        return Power(1.0).shares(steps)


@dataclass(frozen=True)
class Power:
    """(i/k)^power revealed after call i of k: few tokens first, so that the early ones commit to one mode."""

    needs_curve: ClassVar[bool] = False
    power: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.power < math.inf:
            raise InputError(f"power={self.power} is out of range: it must be positive.")

    def shares(self, steps: int, entropy_at: Curve | None = None) -> Float[Tensor, "k"]:
        return (torch.arange(1, steps + 1, dtype=torch.float64) / steps) ** self.power


@dataclass(frozen=True)
class Cosine:
    """1 - cos(pi i / 2k) revealed after call i of k: the grid of MaskGIT (Chang et al. 2022)."""

    needs_curve: ClassVar[bool] = False

    def shares(self, steps: int, entropy_at: Curve | None = None) -> Float[Tensor, "k"]:
        shares = 1 - torch.cos(torch.arange(1, steps + 1, dtype=torch.float64) * (math.pi / 2 / steps))
        shares[-1] = 1.0
        return shares


@dataclass(frozen=True)
class Optimised:
    """The grid that minimises the expected cost of revealing tokens together, for one given denoiser.

    Revealing from share a to b in one call codes those tokens at the NLL H(a) instead of the falling H(u). A step
    therefore costs integral_a^b (H(a) - H(u)) du, the error of a Riemann sum. Dynamic programming over ``points``
    shares (at least 4 k + 1) finds the exact minimum on them. The idea is that of Watson et al. 2021 for continuous
    diffusion, applied here to the any-order likelihood.
    """

    needs_curve: ClassVar[bool] = True
    points: int = 33

    def shares(self, steps: int, entropy_at: Curve | None = None) -> Float[Tensor, "k"]:
        if entropy_at is None:
            raise InputError(
                "grid=optimised needs the NLL curve of a denoiser on validation data; none was given: "
                "take another."
            )
        points = max(self.points, 4 * steps + 1)
        shares = torch.linspace(0, 1, points, dtype=torch.float64)
        nll = torch.cummin(entropy_at(shares).to(torch.float64), dim=0).values
        area = torch.zeros(points, dtype=torch.float64)
        area[1:] = torch.cumsum((nll[1:] + nll[:-1]) / 2 * shares.diff(), 0)
        cost = nll[:, None] * (shares[None] - shares[:, None]) - (area[None] - area[:, None])
        cost = torch.where(shares[None] > shares[:, None], cost, torch.inf)
        best, previous = cost[0].clone(), []
        for _ in range(steps - 1):
            total = best[:, None] + cost
            previous.append(total.argmin(0))
            best = total.min(0).values
        path = [points - 1]
        for back in reversed(previous):
            path.append(int(back[path[-1]]))
        return shares[torch.tensor(path[::-1])]


BUILT_IN: dict[str, type[Grid]] = {"uniform": Uniform, "power": Power, "cosine": Cosine, "optimised": Optimised}
GRIDS: Catalogue[type[Grid]] = Catalogue("grid", BUILT_IN)


def grid(choice: Choice, power: float | None = None, where: str = "grid") -> Grid:
    """The grid of that name, or of ``{kind: name, ...}`` with its own keys.

    Args:
        power: exponent for ``power`` where it is given by name alone.
    """
    name, own = split_choice(choice, where)
    if name == "power" and power is not None:
        own = {"power": power} | own
    return choose(GRIDS, {"kind": name, **own}, where)


def shares_of(made: Grid, steps: int, entropy_at: Curve | None = None) -> Float[Tensor, "k"]:
    """The checked shares of a grid after each of ``steps`` calls.

    Raises:
        InputError: ``steps`` is below 1, or the shares of a plugin's grid do not ascend to 1.
    """
    if steps < 1:
        raise InputError(f"steps={steps} is out of range: at least one denoiser call is needed.")
    shares = made.shares(steps, entropy_at)
    rises = bool((shares.diff(prepend=shares.new_zeros(1)) >= 0).all())
    if shares.shape != (steps,) or shares.dtype != torch.float64 or not rises or shares[-1] != 1:
        raise InputError(
            f"grid {made!r} gives the shares {shares.tolist()} for {steps} steps: it must give {steps} of them in "
            "double precision, ascending, the last one exactly 1."
        )
    return shares
