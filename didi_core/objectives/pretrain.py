"""Train a network from data: a teacher by its NELBO, or a judge by next-token prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor, nn

from didi_core.device import autocast
from didi_core.diffusion.schedules import antithetic_times, schedule
from didi_core.objectives.nelbo import nelbo
from didi_core.processes import Part, Processes
from didi_core.progress import Reporter
from didi_core.streams import generator
from didi_core.training.loop import Keeper, run_steps
from didi_core.training.optimiser import EMA, adamw, apply_gradients
from didi_core.training.settings import PretrainSettings
from didi_core.types import Domain

Loss = Callable[[nn.Module, Tensor, torch.Generator], Tensor]




def nelbo_loss(schedule_name: str, weight_clip: float) -> Loss:
    """The teacher's loss for one batch: NELBO at antithetic times, nats per position; unclipped where nothing is
    learnt."""
    law = schedule(schedule_name)

    def loss(model: nn.Module, tokens: Tensor, stream: torch.Generator) -> Tensor:
        times = antithetic_times(tokens.shape[0], stream, low=1e-3)
        clip = weight_clip if torch.is_grad_enabled() else float("inf")
        return nelbo(model, tokens, times, law, stream, clip)  # type: ignore[arg-type]

    return loss


@dataclass
class Validation:
    """Validation loss on the same batches and noise every time, with the history that goes into the card."""

    batches: list[Tensor]
    loss: Loss
    seed: int
    history: dict[int, float] = field(default_factory=dict)

    @torch.no_grad()
    def measure(self, step: int, model: nn.Module) -> float:
        """Mean loss over the fixed batches, in eval mode."""
        model.eval()
        device = next(model.parameters()).device
        values = [
            float(self.loss(model, batch.to(device), generator(self.seed, "validation", i)))
            for i, batch in enumerate(self.batches)
        ]
        self.history[step] = sum(values) / len(values)
        return self.history[step]

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "steps": torch.tensor(list(self.history), dtype=torch.int64),
            "values": torch.tensor(list(self.history.values()), dtype=torch.float64),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.history = dict(zip(state["steps"].tolist(), state["values"].tolist(), strict=True))


def pretrain(
    domain: Domain,
    model: nn.Module,
    loss: Loss,
    settings: PretrainSettings,
    *,
    seed: int,
    keeper: Keeper,
    reporter: Reporter,
    device: torch.device | None = None,
    precision: str = "fp32",
    processes: Processes | None = None,
) -> dict[int, float]:
    """Train ``model`` in place; it ends with its averaged weights, in eval mode.

    Args:
        processes: those that share every batch; each calls this with networks of the same weights, reads the same
            data and takes its rows.

    Returns:
        validation loss of the averaged weights by step (nats per position), the curve that goes into the card.
    """
    device = device or torch.device("cpu")
    training, together = settings.training, processes or Processes()
    training.part(together.size)
    parts = together.parts(training.accumulate)
    model.to(device)
    average, optimiser = EMA(model, training.ema), adamw(model.parameters(), training.optimiser)
    fixed = domain.batches("validation", training.batch_size, seed)
    validation = Validation([next(fixed) for _ in range(settings.validation_batches)], loss, seed)
    source: Iterator[Tensor] | None = None

    def one_step(step: int) -> dict[str, float]:
        nonlocal source
        if source is None:
            source = domain.batches("train", training.batch_size, seed, start=step)
        model.train()
        total = _accumulate(model, loss, next(source).to(device), parts, seed, step, precision)
        rate = training.optimiser.rate(step, training.steps)
        norm = apply_gradients(optimiser, training.optimiser, rate, parts[-1].average)
        average.update(model)
        scalars = {**together.mean({"loss": total}), "gradient_norm": norm, "lr": rate}
        if (step + 1) % settings.validate_every == 0 or step + 1 == training.steps:
            scalars["validation_loss"] = _with_average(model, average, lambda: validation.measure(step + 1, model))
        return scalars

    run_steps(
        one_step,
        {"model": model, "average": average, "optimiser": optimiser, "validation": validation},
        keeper,
        reporter,
        title="pretrain",
        steps=training.steps,
        checkpoint_every=training.checkpoint_every,
        log_every=training.log_every,
    )
    average.copy_to(model)
    model.eval()
    return validation.history


def _accumulate(
    model: nn.Module,
    loss: Loss,
    tokens: Int[Tensor, "B L"],
    parts: Sequence[Part],
    seed: int,
    step: int,
    precision: str,
) -> float:
    """Gradients of the loss on this process's parts of the batch. Returns the loss."""
    total, slices = 0.0, tokens.chunk(parts[0].total)
    for part in parts:
        with autocast(tokens.device, precision):
            value = loss(model, slices[part.number], generator(seed, "train", step, part.number)) / part.turns
        value.backward()
        total += float(value.detach())
    return total


def _with_average(model: nn.Module, average: EMA, measure: Callable[[], float]) -> float:
    """Run ``measure`` with the averaged weights in place, then put the present ones back."""
    present = {name: p.detach().clone() for name, p in model.named_parameters() if name in average.shadow}
    average.copy_to(model)
    value = measure()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in present:
                parameter.copy_(present[name])
    return value
