"""Device and precision of networks, and the keys ``device`` and ``precision`` that every command takes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from didi_core.errors import InputError, counted, unknown

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class Machine:
    """Device and precision of a run. ``auto`` is CUDA with bf16 where there is a GPU, otherwise the CPU with fp32."""

    device: torch.device
    precision: str  # "fp32" or "bf16"

    @classmethod
    def of(cls, device: str, precision: str) -> Machine:
        """The machine for these keys. Raises InputError for a device that is not available."""
        check_device(device)
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("device=cuda, but torch sees no CUDA device. Use device=cpu or device=auto.")
        if precision == "auto":
            precision = "bf16" if device == "cuda" else "fp32"
        return cls(torch.device(device), precision)

    @property
    def dtype(self) -> torch.dtype:
        """Data type of attention."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def label(self) -> str:
        """Label for a record: name of the GPU, or the CPU and its number of threads."""
        if self.device.type == "cuda":
            return f"cuda ({torch.cuda.get_device_name(self.device)})"
        return f"cpu ({counted(torch.get_num_threads(), 'thread')})"


def check_device(device: str) -> None:
    """Raise InputError for an unknown name of a device."""
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)


def device_of(module: nn.Module) -> torch.device:
    """The device of a network's weights; the CPU for a network without any."""
    first = next(module.parameters(), None)
    return first.device if first is not None else torch.device("cpu")


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """bf16 autocast over fp32 master weights, or a context that does nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error reports a lack of memory, on a GPU or on the CPU."""
    message = str(error).lower()
    reports = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in message for words in reports)
