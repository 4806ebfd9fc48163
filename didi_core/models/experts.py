"""What follows attention in a layer: one MLP, or a mixture of experts of which each position runs a few.

The mixture is that of LLaDA2 (arXiv 2512.15745) with DeepSeek-V3's router (arXiv 2412.19437): a sigmoid score for every
expert, a bias on the choice alone, and a choice in two stages, first of groups and then of experts within these.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from didi_core.errors import InputError, at_least, positive

BEST_OF_A_GROUP = 2  # experts whose scores, added, rank their group


@dataclass(frozen=True)
class ExpertsConfig:
    """Sizes. LLaDA2.0-mini is count=256, chosen=8, width=512, shared=1, groups=8, chosen_groups=4, dense=1, scale=2.5.

    count: of experts. chosen: of them, for each position. width: of an expert's MLP. shared: widths of the MLP that
    every position runs besides; 0 for none. groups: into which the experts are divided, in order. chosen_groups: of
    them, from which the experts of a position are taken. dense: first layers, which have a plain MLP. scale: of the sum
    over the chosen experts.
    """

    count: int
    chosen: int
    width: int
    shared: int
    groups: int
    chosen_groups: int
    dense: int
    scale: float

    def __post_init__(self) -> None:
        at_least(1, **{name: getattr(self, name) for name in ("count", "chosen", "width", "groups", "chosen_groups")})
        at_least(0, shared=self.shared, dense=self.dense)
        positive(scale=self.scale)
        if self.count % self.groups or self.count < BEST_OF_A_GROUP * self.groups:
            raise InputError(
                f"count={self.count} experts do not divide into groups={self.groups} of the same size, at least "
                f"{BEST_OF_A_GROUP}."
            )
        if self.chosen_groups > self.groups:
            raise InputError(f"chosen_groups={self.chosen_groups} is more than groups={self.groups}.")
        if self.chosen > self.chosen_groups * (self.count // self.groups):
            raise InputError(
                f"chosen={self.chosen} is more than the {self.chosen_groups * (self.count // self.groups)} experts of "
                f"chosen_groups={self.chosen_groups}."
            )


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        made: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return made


class Router(nn.Module):
    """Chooses the experts of each position.

    ``expert_bias`` evened out how often experts are chosen when the model was trained. It is no parameter: it has no
    gradient, and stays as it is.
    """

    expert_bias: Tensor

    def __init__(self, width: int, config: ExpertsConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.count, width))
        nn.init.normal_(self.weight, std=width**-0.5)
        self.register_buffer("expert_bias", torch.zeros(config.count))

    def forward(self, x: Float[Tensor, "N D"]) -> tuple[Int[Tensor, "N Y"], Float[Tensor, "N Y"]]:
        """The chosen experts and their weights, in fp32 at least: in half precision, near scores change places."""
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(x.dtype, torch.float32)
            scores = F.linear(x.to(wide), self.weight.to(wide)).sigmoid()
        chosen = choose(scores.detach() + self.expert_bias.to(wide), self.config)
        weights = scores.gather(1, chosen)
        if self.config.chosen > 1:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        return chosen, weights * self.config.scale


def choose(scores: Float[Tensor, "N X"], config: ExpertsConfig) -> Int[Tensor, "N Y"]:
    """The experts of the highest scores within the groups whose two best scores have the highest sums."""
    grouped = scores.unflatten(1, (config.groups, -1))
    ranks = grouped.topk(BEST_OF_A_GROUP, dim=-1).values.sum(-1)
    kept = torch.zeros_like(ranks, dtype=torch.bool).scatter(1, ranks.topk(config.chosen_groups).indices, True)
    return grouped.masked_fill(~kept[..., None], -torch.inf).flatten(1).topk(config.chosen).indices


class Mixture(nn.Module):
    """The weighted sum of each position's experts, and of the shared one.

    Experts are modules of their own, as in the files of the hub, so that weights are read without a copy. Each runs
    once, on all positions that chose it; one that none chose has no gradient.
    """

    def __init__(self, width: int, config: ExpertsConfig) -> None:
        super().__init__()
        self.gate = Router(width, config)
        self.experts = nn.ModuleList(MLP(width, config.width) for _ in range(config.count))
        if config.shared:
            self.shared_experts = MLP(width, config.shared * config.width)

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        chosen, weights = self.gate(x)
        order = chosen.flatten().argsort(stable=True)  # by expert
        counts = chosen.flatten().bincount(minlength=len(self.experts)).tolist()  # the only wait for the device
        given = x[order // chosen.shape[1]].split(counts)
        made = torch.cat([expert(part) for expert, part in zip(self.experts, given, strict=True) if len(part)])
        back = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
        mixed = (made[back].unflatten(0, chosen.shape) * weights[..., None]).sum(1).to(x.dtype)
        return mixed + self.shared_experts(x) if hasattr(self, "shared_experts") else mixed


def saved_by_mixture(config: ExpertsConfig, width: int, adapted: bool) -> int:
    """What the mixture keeps of a position for the backward pass, in bytes, beside what a layer with an MLP of no width
    keeps. As ``didi_core.models.llama.saved_bytes``, with adapters on all but the experts."""
    routed, shared = config.chosen * config.width, config.shared * config.width
    router = 4 * config.count + 44 * config.chosen
    beside = 4 * width + 8 * shared if shared else 0
    if adapted:
        return router + beside - 4 * width + 2 * config.chosen * width + 6 * routed
    return router + beside + 6 * config.chosen * width + 8 * routed
