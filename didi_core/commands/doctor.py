"""``doctor``: what this installation is and what can run here."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table

from didi_core.commands.common import CommonSettings
from didi_core.commands.plugins import plugin_table
from didi_core.device import Machine
from didi_core.models.attention import available_backends, resolve_backend
from didi_core.plugins import registry
from didi_core.run_dir import git_commit, versions


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """``configs/doctor.yaml``."""


def run(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> None:
    """Print versions, devices, attention backends and plugins."""
    del config, command_line
    console = Console()
    machine = Machine.of(settings.device, settings.precision)
    table = Table("what", "value", title="installation", title_justify="left")
    for name, version in versions().items():
        table.add_row(name, version)
    table.add_row("git commit", git_commit() or "none (installed from a wheel)")
    table.add_row("system", platform.platform())
    table.add_row("device", f"{machine.label}, {machine.precision}")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        table.add_row(f"cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    table.add_row("several processes", parallel_label())
    console.print(table)
    chosen = resolve_backend("auto", machine.device, machine.dtype)
    attention = Table("backend", "here", title=f"attention (auto: {chosen.name})", title_justify="left")
    for name, state in available_backends(machine.device, machine.dtype).items():
        attention.add_row(name, state)
    console.print(attention)
    console.print(plugin_table(registry()))


def parallel_label() -> str:
    """What torchrun could use here."""
    if not dist.is_available():
        return "no: this torch has no torch.distributed"
    known = [name for name, there in (("gloo", dist.is_gloo_available()), ("nccl", dist.is_nccl_available())) if there]
    gpus = torch.cuda.device_count()
    return f"{', '.join(known)}; torchrun --nproc-per-node={gpus if gpus > 1 else '<n>'} -m didi_core distill ..."
