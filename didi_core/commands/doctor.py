"""``doctor``: the installation, what runs on this machine, what is missing, and the commands that add it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
import torch.distributed as dist
from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table

from didi_core.commands.common import CommonSettings
from didi_core.commands.plugins import plugin_table
from didi_core.config import user_path
from didi_core.device import Machine
from didi_core.errors import first_line
from didi_core.models.attention import available_backends, resolve_backend
from didi_core.plugins import registry
from didi_core.storage.run_dir import git_commit, versions

HUB_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """``configs/doctor.yaml``."""


@dataclass(frozen=True)
class Feature:
    """An optional feature: the modules or programs that it needs beyond the core's dependencies, and what adds them.

    release: of a distribution, where older ones do not do (``esm>=3.4``). programs: on the PATH.
    """

    name: str
    modules: tuple[str, ...]
    command: str
    cuda: bool = False
    python: tuple[int, int] = (3, 11)
    release: str = ""
    programs: tuple[str, ...] = ()

    def missing(self) -> str:
        """What is missing, in words; '' if the feature can be used."""
        if sys.version_info < self.python:
            return "needs Python " + ".".join(map(str, self.python))
        absent = [name for name in self.modules if not _there(name)]
        if absent:
            return f"{', '.join(absent)} not installed"
        lacking = [name for name in self.programs if shutil.which(name) is None]
        if lacking:
            return f"{', '.join(lacking)} not on the PATH"
        if self.release:
            wanted = Requirement(self.release)
            found = version(wanted.name)
            if not wanted.specifier.contains(found, prereleases=True):
                return f"needs {self.release}, found {found}"
        return "no CUDA device" if self.cuda and not torch.cuda.is_available() else ""


def _there(module: str) -> bool:
    """Whether a module can be found; a package of the same name without it, such as fair-esm's esm, does not count."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


FEATURES = (
    Feature("fastest attention on GPUs", ("xformers",), 'pip install "didi-core[xformers]"', cuda=True),
    Feature("nearest known protein by exact alignment", ("pyopal",), 'pip install "didi-core[novelty]"'),
    Feature(
        "nearest known protein in large sets (novelty=mmseqs)",
        (),
        "conda install -c conda-forge -c bioconda mmseqs2",
        programs=("mmseqs",),
    ),
    Feature(
        "how new a fold is, clusters of structures (foldseek=...)",
        (),
        "conda install -c conda-forge -c bioconda foldseek",
        programs=("foldseek",),
    ),
    Feature(
        "ESM C by name (pppl=esm:...)",
        ("esm.models.esmc",),
        'pip install "didi-core[esm]"',
        python=(3, 12),
        release="esm>=3.4",
    ),
    Feature("adapters in training (adapter=lora)", ("peft",), 'pip install "didi-core[lora]"'),
    Feature("samples and scores as DataFrames", ("pandas",), 'pip install "didi-core[frame]"'),
    Feature(
        "sweeps on many cores, on Slurm, by search",
        tuple(f"hydra_plugins.hydra_{name}" for name in ("joblib_launcher", "submitit_launcher", "optuna_sweeper")),
        'pip install "didi-core[sweep]"',
    ),
    Feature("the page of demo", ("gradio",), 'pip install "didi-core[demo]"'),
    Feature("tests and the conformance kit", ("pytest", "hypothesis", "beartype"), 'pip install "didi-core[test]"'),
    Feature("TensorBoard", ("tensorboard", "didi_tensorboard"), "pip install ./plugins/didi_tensorboard"),
    Feature("Weights & Biases", ("wandb", "didi_wandb"), "pip install ./plugins/didi_wandb"),
)


def run(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> None:
    """Print the findings. Each backend and precision is tried."""
    del config, command_line
    console = Console(markup=False)
    machine = Machine.of(settings.device, settings.precision)
    chosen = resolve_backend("auto", machine.device, machine.dtype)
    console.print(_table("installation", ("what", "value"), installation(machine)))
    console.print(_table("precision", ("precision", "here"), precisions(machine.device)))
    backends = available_backends(machine.device, machine.dtype)
    attention = {"auto": f"{chosen.name} ({chosen.reason})", **backends}
    console.print(_table("attention", ("backend", "here"), attention))
    console.print(_table("places", ("what", "here"), places()))
    console.print(plugin_table(registry()))
    features = Table("feature", "here", "what adds it", title="optional features", title_justify="left")
    for feature in FEATURES:
        missing = feature.missing()
        features.add_row(feature.name, missing or "ok", feature.command if missing else "")
    console.print(features)


def installation(machine: Machine) -> dict[str, str]:
    """Versions and devices."""
    found = dict(versions())
    found["git commit"] = git_commit() or "none (installed from a wheel)"
    found["system"] = platform.platform()
    found["device"] = f"{machine.label}, {machine.precision}"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        size, kind = f"{properties.total_memory / 2**30:.0f} GiB", f"{properties.major}.{properties.minor}"
        found[f"cuda:{index}"] = f"{properties.name}, {size}, capability {kind}"
    found["several processes"] = parallel_label()
    return found


def parallel_label() -> str:
    """Communication backends available to torchrun."""
    if not dist.is_available():
        return "no: this torch has no torch.distributed"
    known = [name for name, there in (("gloo", dist.is_gloo_available()), ("nccl", dist.is_nccl_available())) if there]
    gpus = torch.cuda.device_count()
    return f"{', '.join(known)}; torchrun --nproc-per-node={gpus if gpus > 1 else '<n>'} -m didi_core distill ..."


def precisions(device: torch.device) -> dict[str, str]:
    """Test fp32 and bf16 by multiplying two small matrices; fp16 is not offered."""
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        try:
            ones = torch.ones(16, 16, device=device, dtype=dtype)
            right = bool(((ones @ ones) == 16).all())
            slow = dtype is torch.bfloat16 and device.type == "cpu"
            found[name] = ("ok, but not faster on most CPUs" if slow else "ok") if right else "computes wrong values"
        except RuntimeError as error:
            found[name] = first_line(error)
    return found


def places() -> dict[str, str]:
    """The hub, its cache, and free disk space for runs."""
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface"), "hub"))
    cache = user_path(cache)
    held = sorted(path.name for path in cache.glob("models--*")) if cache.is_dir() else []
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return {
        "hub": hub(),
        "hub cache": f"{cache}: {len(held)} models" if cache.is_dir() else f"{cache}: empty",
        "room here": f"{free:.1f} GiB free in {Path.cwd()}" + ("; a run may need more" if free < 1 else ""),
    }


def hub() -> str:
    """Whether the model hub is reachable. Nothing is downloaded."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return "not asked: HF_HUB_OFFLINE is set, hub ids are read from the cache"
    address = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=HUB_SECONDS).close()
    except OSError as error:
        return f"{address.hostname} does not answer ({error.strerror or error}): give paths instead of hub ids"
    return f"{address.hostname} answers"


def _table(title: str, headers: tuple[str, str], rows: Mapping[str, str]) -> Table:
    table = Table(*headers, title=title, title_justify="left")
    for name, value in rows.items():
        table.add_row(name, value)
    return table
