"""What an update does beside its network: AdamW, the average of the weights, conditioning, and casts of frozen weights.

    python benchmarks/updating.py [--quick] [--out FILE]

``average``: tensor by tensor, against all at once. ``AdamW``: its kernels for many tensors (``foreach``), against the
one that a GPU takes (``fused``); a CPU keeps the first, whose rounding its results have.

Two that are *not* done, to see what they would save. ``conditioning held``: the vector and its modulations, which are
the same at every call, kept from the first. ``bf16 held``: the weights of a frozen teacher in bf16, which autocast
makes anew at every call.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from unittest.mock import patch

import torch
from measure import PROTEIN, Case, close, main, network
from torch import Tensor, nn

from didi_core.models.dit import DiT
from didi_core.streams import generator
from didi_core.training.optimiser import EMA, OptimiserSettings, adamw

STEPS = 10  # of an optimiser or an average between two looks at the clock
SETTINGS = OptimiserSettings(lr=1e-3, weight_decay=0.01)


def with_gradients(hidden: int, layers: int) -> DiT:
    """A network with the gradients of one update, which stay."""
    model, stream = network(PROTEIN, hidden, layers).requires_grad_(True), generator(0, "benchmark")
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=stream)
    return model


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def optimiser(hidden: int, layers: int) -> Case:
    def steps(fused: bool) -> Callable[[], Tensor]:
        model = with_gradients(hidden, layers)
        made = adamw(model.parameters(), SETTINGS)
        if fused:
            made = torch.optim.AdamW(made.param_groups, lr=SETTINGS.lr, betas=SETTINGS.betas, foreach=False, fused=True)

        def run() -> Tensor:
            for _ in range(STEPS):
                made.step()
            return weights(model)

        return run

    return Case(steps(fused=False), steps(fused=True), close)


def average(hidden: int, layers: int) -> Case:
    model = with_gradients(hidden, layers)
    one, all_at_once = EMA(model, 0.9), EMA(model, 0.9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01

    @torch.no_grad()
    def by_tensor() -> Tensor:
        for _ in range(STEPS):
            one.updates += 1
            rate = 1 - min(one.decay, (1 + one.updates) / (10 + one.updates))
            for name, parameter in model.named_parameters():
                one.shadow[name].lerp_(parameter.detach().float(), rate)
        return torch.cat([shadow.flatten() for shadow in one.shadow.values()])

    def ours() -> Tensor:
        for _ in range(STEPS):
            all_at_once.update(model)
        return torch.cat([shadow.flatten() for shadow in all_at_once.shadow.values()])

    return Case(by_tensor, ours, torch.equal)


def tokens(batch: int, length: int) -> Tensor:
    return torch.randint(4, 24, (batch, length), generator=generator(0, "benchmark"))


class Held(nn.Module):
    """A layer's first output, whatever the input."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, condition: Tensor) -> Tensor:
        del condition
        return self.output


@torch.no_grad()
def conditioning(batch: int, length: int, hidden: int, layers: int) -> Case:
    model, kept, given = network(PROTEIN, hidden, layers), network(PROTEIN, hidden, layers), tokens(batch, length)
    vector = kept.condition()
    for layer in (*kept.blocks, kept.output_layer):
        layer.adaLN_modulation = Held(layer.adaLN_modulation(vector))

    @torch.no_grad()
    def held() -> Tensor:
        with patch.object(kept, "condition", lambda: vector):
            return kept(given)

    return Case(torch.no_grad()(lambda: model(given)), held, torch.equal)


def half(batch: int, length: int, hidden: int, layers: int) -> Case:
    model, given = network(PROTEIN, hidden, layers).requires_grad_(False), tokens(batch, length)
    kept = copy.deepcopy(model)
    for layer in kept.modules():
        if isinstance(layer, nn.Linear):
            layer.to(torch.bfloat16)

    def call(teacher: DiT) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                return teacher(given)

        return run

    return Case(call(model), call(kept), torch.equal)


CASES = {
    "average, 12 x 256": lambda quick: average(32, 1) if quick else average(256, 12),
    "average, 4 x 128": lambda quick: average(32, 1) if quick else average(128, 4),
    "AdamW, 4 x 128": lambda quick: optimiser(32, 1) if quick else optimiser(128, 4),
    "AdamW, 12 x 256": lambda quick: optimiser(32, 1) if quick else optimiser(256, 12),
    "conditioning held, 1 x 64": lambda quick: conditioning(*((2, 16, 32, 1) if quick else (1, 64, 256, 4))),
    "conditioning held, 16 x 128": lambda quick: conditioning(*((2, 16, 32, 1) if quick else (16, 128, 256, 4))),
    "bf16 held, 1 x 64": lambda quick: half(*((2, 16, 32, 1) if quick else (1, 64, 256, 4))),
    "bf16 held, 16 x 128": lambda quick: half(*((2, 16, 32, 1) if quick else (16, 128, 256, 4))),
}

if __name__ == "__main__":
    main(__file__, "plain / ours, or what it would be", CASES)
