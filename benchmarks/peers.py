"""Released samplers of other code beside ours, on the same network: their update steps as they are, our weights.

    python benchmarks/peers.py --mdlm FOLDER --duo FOLDER [--steps 8,64,256] [--length 256] [--repeats 3]
        [--quick] [--out FILE]

The folders are checkouts of github.com/kuleshov-group/mdlm and github.com/s-sahoo/duo; nothing of them is in this
project. Only what their sampling needs is loaded: the libraries around training are replaced by empty modules. MDLM
computes in fp32 with its cache (``ddpm_cache``), Duo's code samples the same masked process in fp64
(``ancestral_cache``). Both make one more call at the end, which writes what is still masked. 50,258 rows. Peaks are
measured at the first number of steps; they hardly depend on it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
from measure import TEXT, Case, compare, network, peak_bytes, table
from rich.console import Console
from sampling import GROUPS, same_law
from torch import Tensor

from didi_core.diffusion.grids import Uniform
from didi_core.diffusion.laws import law
from didi_core.models.dit import DiT
from didi_core.sampling.ancestral import Ancestral
from didi_core.sampling.base import SampleRequest
from didi_core.streams import generator

Sampling = Callable[[DiT, int, int, int], Tensor]  # network, batch, length, steps


class Lightning(torch.nn.Module):
    """What their networks inherit from."""

    device = torch.device("cpu")


@contextlib.contextmanager
def only_sampling(folder: Path) -> Iterator[None]:
    """Modules of ``folder`` can be imported, and everything that it imports beside torch is empty."""
    names = "lightning torchmetrics torchmetrics.aggregation hydra hydra.utils transformers fsspec dataloader models"
    empty: dict[str, Any] = {name: MagicMock() for name in [*names.split(), "utils", "metrics"]}
    empty["lightning"].LightningModule = Lightning
    empty["torchmetrics"].aggregation.MeanMetric = object
    before = {name: sys.modules.get(name) for name in empty}
    sys.modules.update(empty)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def blank(kind: type, **attributes: Any) -> Any:
    """An object of a class without its constructor, which would load data and tokenizers."""
    made = kind.__new__(kind)
    torch.nn.Module.__init__(made)
    for name, value in attributes.items():
        object.__setattr__(made, name, value)
    return made


def mdlm(folder: Path) -> Sampling:
    """``Diffusion._sample`` of MDLM."""
    with only_sampling(folder):
        theirs, noise = importlib.import_module("diffusion"), importlib.import_module("noise_schedule")

    def sample(model: DiT, batch: int, length: int, steps: int) -> Tensor:
        config = SimpleNamespace(
            noise=SimpleNamespace(type="loglinear"),
            loader=SimpleNamespace(eval_batch_size=batch),
            model=SimpleNamespace(length=length),
            sampling=SimpleNamespace(steps=steps, noise_removal=True),
        )
        made = blank(
            theirs.Diffusion,
            config=config,
            sampler="ddpm_cache",
            parameterization="subs",
            mask_index=TEXT.mask,
            time_conditioning=False,
            neg_infinity=-1e6,
            noise=noise.LogLinearNoise(),
            backbone=lambda x, sigma: model(x),
        )
        return made._sample(num_steps=steps)

    return sample


def duo(folder: Path) -> Sampling:
    """``generate_samples`` of Duo's code for masked diffusion."""
    with only_sampling(folder):
        theirs, base = importlib.import_module("algo"), importlib.import_module("trainer_base")

    def sample(model: DiT, batch: int, length: int, steps: int) -> Tensor:
        how: dict[str, Any] = {"use_float64": True, "guid_weight": None, "psi": SimpleNamespace(time_profile="linear")}
        how |= {"predictor": "ancestral_cache", "noise_removal": "ancestral"}
        made = blank(
            theirs.MDLM,
            config=SimpleNamespace(sampling=SimpleNamespace(steps=steps, **how)),
            sampler="ancestral_cache",
            class_conditional=False,
            p_nucleus=1.0,
            mask_index=TEXT.mask,
            num_tokens=length,
            time_conditioning=False,
            neg_infinity=-1e6,
            noise=base.LogLinear(1e-3),
            backbone=lambda x, **_: model(x),
        )
        return made.generate_samples(batch, num_steps=steps)

    return sample


def ours(model: DiT, batch: int, length: int, steps: int) -> Tensor:
    """The ancestral sampler, law ``iid``."""
    template = torch.full((batch, length), TEXT.mask)
    stream = generator(0, "benchmark")
    return Ancestral().sample(SampleRequest(model, template, Uniform().shares(steps), law("iid"), stream)).tokens


def beside(theirs: Sampling, steps: int, length: int, quick: bool) -> Case:
    """Both samplers on one untrained network, one sequence."""
    batch, hidden, layers = (1, 16, 1) if quick else (1, 256, 4)
    model = network(TEXT, hidden, layers).requires_grad_(False)
    with torch.no_grad():  # uneven, so that equality of the two laws can fail
        model.output_layer.linear.bias.copy_(torch.arange(TEXT.size + 1) % GROUPS * 0.3)

    def run(sampler: Sampling) -> Tensor:
        torch.manual_seed(0)
        with torch.no_grad():
            return sampler(model, batch, length, steps)

    return Case(lambda: run(theirs), lambda: run(ours), lambda a, b: same_law(a, b, TEXT))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mdlm", type=Path)
    parser.add_argument("--duo", type=Path)
    parser.add_argument("--steps", default="8,64,256")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    if not (given.mdlm or given.duo):
        parser.error("give --mdlm FOLDER, --duo FOLDER or both: there is nothing to compare with.")
    rows = []
    for name, load, folder in (("MDLM", mdlm, given.mdlm), ("Duo", duo, given.duo)):
        if folder is None:
            continue
        theirs = load(folder)
        beside(theirs, 2, 32, True).ours()  # torch loads some of itself late
        for number, steps in enumerate(map(int, given.steps.split(","))):
            case = beside(theirs, steps, given.length, given.quick)
            peaks = [peak_bytes(way) / 1e6 for way in (case.plain, case.ours)] if number == 0 else []
            row = compare(f"{name}, {steps} steps", case, given.repeats)
            rows.append(replace(row, plain_megabytes=peaks[0], our_megabytes=peaks[1]) if peaks else row)
            print(rows[-1], flush=True)
    about = {"threads": torch.get_num_threads(), "torch": torch.__version__, "load": round(os.getloadavg()[0], 1)}
    Console().print(table("their sampler / ours, 50,258 rows", rows, about))
    if given.out:
        given.out.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
