"""AdamW with warm-up, linear decay and clipping, and the exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from didi_core.errors import InputError
from didi_core.processes import together


@dataclass(frozen=True)
class OptimiserSettings:
    """AdamW with a schedule.

    lr: learning rate after the warm-up. warmup: steps of linear warm-up. final: fraction of lr left at the end.
    clip: bound on the gradient norm.
    """

    lr: float = 1e-3
    warmup: int = 0
    final: float = 0.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.lr < float("inf"):
            raise InputError(f"lr={self.lr} is out of range: it must be a number that is not negative.")
        if self.warmup < 0:
            raise InputError(f"warmup={self.warmup} is out of range: it must not be negative.")
        if not 0 <= self.final <= 1:
            raise InputError(f"final={self.final} is out of range: the fraction of lr left at the end is in [0, 1].")
        if not self.clip > 0:
            raise InputError(f"clip={self.clip} is out of range: the gradient norm it bounds is positive.")

    def rate(self, step: int, total: int) -> float:
        """Learning rate of step 0 .. total-1: linear warm-up, then linear decay to ``final`` * lr."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        left = (total - step) / max(total - self.warmup, 1)
        return self.lr * (self.final + (1 - self.final) * left)


OF_ADAMW = {"lr": "lr", "warmup": "lr_warmup", "final": "lr_final", "clip": "gradient_clip"}


@dataclass(frozen=True)
class RateSettings:
    """The keys of a group whose networks learn beside those of ``training``.

    lr, lr_warmup, lr_final, gradient_clip: settings of AdamW, as in ``training``.
    """

    lr: float = 1e-3
    lr_warmup: int = 20
    lr_final: float = 0.1
    gradient_clip: float = 1.0

    def __post_init__(self) -> None:
        try:
            self.optimiser  # noqa: B018  # raises for a wrong rate before anything is made
        except InputError as error:
            key, _, rest = str(error).partition("=")
            raise InputError(f"{OF_ADAMW[key]}={rest}") from None

    @property
    def optimiser(self) -> OptimiserSettings:
        return OptimiserSettings(lr=self.lr, warmup=self.lr_warmup, final=self.lr_final, clip=self.gradient_clip)


def checked(group: str, make: Callable[[], OptimiserSettings]) -> None:
    """Check optimiser settings before anything runs. Raises InputError with the dotted name of the key."""
    try:
        make()
    except InputError as error:
        raise InputError(f"{group}.{error}") from None


def adamw(parameters: Iterable[nn.Parameter], settings: OptimiserSettings) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; weight decay applies to matrices, not to vectors."""
    trainable = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = all(p.device.type == "cuda" for p in trainable)  # its rounding differs, so a CPU keeps the plain version
    kernel = {"fused": True} if fused else {"foreach": True}
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.lr, betas=settings.betas, **kernel)


def apply_gradients(optimiser: torch.optim.Optimizer, settings: OptimiserSettings, lr: float) -> float:
    """Clip the gradients, make one step, clear them. Returns the gradient norm before clipping."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = clip_gradients(parameters, settings.clip)
    for group in optimiser.param_groups:
        group["lr"] = lr
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return float(norm)  # last, because it waits for the device


def clip_gradients(parameters: Sequence[nn.Parameter], bound: float) -> Tensor:
    """Scale gradients down to a norm of ``bound``. Of sharded ones it is the norm over all shards, of all processes.

    Returns:
        the norm before.
    """
    mesh = getattr(parameters[0], "device_mesh", None)
    if mesh is None:
        return torch.nn.utils.clip_grad_norm_(parameters, bound)
    gradients = [local(p.grad) for p in parameters if p.grad is not None]
    squared = torch.nn.utils.get_total_norm(gradients).square()
    with together():
        torch.distributed.all_reduce(squared, group=mesh.get_group())
    norm = squared.sqrt()
    torch._foreach_mul_(gradients, (bound / (norm + 1e-6)).clamp(max=1.0))  # as clip_grad_norm_
    return norm


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, or a plain tensor itself."""
    own: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return own


class EMA:
    """Exponential moving average of a module's parameters, in fp32, with bias correction by a growing decay.

    Update n sets shadow <- d shadow + (1 - d) weights with d = min(decay, (1 + n) / (10 + n)), as in MDLM's code, so
    early averages follow the weights quickly.

    only: names of the parameters that are averaged; None for all that require a gradient.
    """

    def __init__(self, module: nn.Module, decay: float, only: frozenset[str] | None = None) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"ema={decay} is out of range: it must be in [0, 1).")
        self.decay, self.updates = decay, 0
        learnt = {name: p for name, p in module.named_parameters() if p.requires_grad}
        names = learnt if only is None else learnt.keys() & only
        self.shadow = {name: p.detach().float().clone() for name, p in learnt.items() if name in names}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's current weights."""
        self.updates += 1
        rate = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        present = {name: p.detach().float() for name, p in module.named_parameters() if name in self.shadow}
        torch._foreach_lerp_([self.shadow[name] for name in present], list(present.values()), rate)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the module's parameters with the average."""
        for name, parameter in module.named_parameters():
            if name in self.shadow:
                parameter.copy_(self.shadow[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The average and the number of updates, as tensors."""
        return {**self.shadow, "ema.updates": torch.tensor(self.updates)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Inverse of ``state_dict``; names must agree."""
        names = {*state} - {"ema.updates"}
        if names != {*self.shadow}:
            raise InputError(
                f"the checkpoint's average belongs to another network: {sorted(names ^ {*self.shadow})[:4]} ... Use "
                "another run_dir."
            )
        self.updates = int(state["ema.updates"])
        self.shadow = {name: state[name].to(own.device, copy=True) for name, own in self.shadow.items()}
