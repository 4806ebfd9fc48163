"""A folder that a predictor filled, read by design: the best sample of each, its chains and confidences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from didi_core.errors import InputError, counted
from didi_core.types import Sample

from ..fasta import CHAINS
from .atoms import Chain, read_chains
from .confidence import LARGE, LARGEST, array, number, read_values, scale_of, share
from .match import chains_of
from .predictors import PLAIN, Found, plain_key, readings, stem

SHOWN = 5


@dataclass(frozen=True)
class Predicted:
    """A structure of a design: its chains in order, and confidence of each of their atoms on the scale 0 to 100.

    ``plddt`` is empty where the predictor left none. ``pae``: error of all pairs of residues of the chains, angstroms.
    """

    design: str
    path: Path
    chains: tuple[Chain, ...] = field(repr=False)
    plddt: tuple[Float[np.ndarray, "A"], ...] = field(repr=False)
    ptm: float | None = None
    iptm: float | None = None
    pae: Float[np.ndarray, "L L"] | None = field(default=None, repr=False)

    @property
    def residues(self) -> Float[np.ndarray, "L"]:
        """pLDDT of the CA atoms of all chains."""
        return np.concatenate([c.of_ca(v) for c, v in zip(self.chains, self.plddt, strict=True)])

    @property
    def ca(self) -> Float[np.ndarray, "L 3"]:
        """CA positions of all chains."""
        return np.concatenate([chain.positions()[:, 0] for chain in self.chains])


@dataclass(frozen=True)
class Predictions:
    """What a folder holds: ``name`` of the predictor, structures by design, and what the user should know."""

    name: str
    structures: Mapping[str, Predicted]
    messages: tuple[str, ...]


def read_folder(folder: Path, designs: Sequence[Sample], tick: Callable[[], None] = lambda: None) -> Predictions:
    """The structures of the designs in a folder and the folders in it.

    Raises:
        InputError: no such folder, none of the designs in it, files of several predictors, several models in a file,
            a structure of another sequence, confidences on no known scale.
    """
    found, strange = find(folder, [design.id for design in designs])
    predictors = sorted({files[0].layout.predictor for files in found.values()})
    if len(predictors) > 1:
        raise InputError(
            f"structures={folder} holds files of several predictors ({', '.join(predictors)}). Give each its own "
            "folder: structures=[<folder>,<folder>]."
        )
    raw: dict[str, tuple[Found, tuple[Chain, ...], tuple[np.ndarray, ...]]] = {}
    several: dict[str, bool] = {}
    for design in designs:
        if design.id in found:
            best = best_sample(found[design.id])
            every = read_chains(best.path)
            chains = chains_of(every, design.text.split(CHAINS), design.id, best.path)
            raw[design.id] = best, chains, _confidences(best, every, chains)
            several[design.id] = len(every) > 1
            tick()
    scale = _scale(raw)
    structures = {
        name: Predicted(
            name, best.path, chains,
            tuple(v * (LARGEST[LARGE] / LARGEST[scale]) for v in values) if scale else (),
            *_overall(best, several[name]), _pae(best, sum(map(len, chains))),
        )
        for name, (best, chains, values) in raw.items()
    }  # fmt: skip
    name = folder.resolve().name if predictors == [PLAIN.predictor] else predictors[0]
    return Predictions(name, structures, tuple(_messages(folder, name, designs, found, strange, scale)))


def find(
    folder: Path, ids: Sequence[str], key: str = "structures"
) -> tuple[dict[str, list[Found]], list[Path]]:
    """Structure files by design, and those of none. Raises InputError where there is none of the designs.

    Args:
        key: the setting that names the folder, for messages.
    """
    if not folder.is_dir():
        what = "this is a file" if folder.is_file() else "no such folder"
        raise InputError(f"{key}={folder}: {what}. Give the folder that the predictor wrote.")
    written: dict[str, list[str]] = defaultdict(list)
    for name in ids:
        written[plain_key(name)].append(name)
    names = set(ids)
    found: dict[str, list[Found]] = defaultdict(list)
    strange = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and stem(path)):
        for reading in readings(path):
            close = written.get(plain_key(reading.name), [])
            design = reading.name if reading.name in names else close[0] if len(close) == 1 else None
            if design is not None:
                found[design].append(reading)
                break
        else:
            strange.append(path)
    if not found:
        if not strange:
            raise InputError(f"{key}={folder} holds no PDB or mmCIF file. Give the folder that the predictor wrote.")
        raise InputError(
            f"{key}={folder} holds {counted(len(strange), 'structure file')}, such as {strange[0].name}, and none is "
            f"named after a design, such as {ids[0]}. Name the predictor's jobs by the designs' ids."
        )
    return found, strange


def best_sample(files: Sequence[Found]) -> Found:
    """Of several samples of a design the one that its predictor ranks first, else the first."""

    def rank(file: Found) -> tuple[float, int, str]:
        path = file.beside(file.layout.scores) if file.layout.rank else None
        score = None if path is None else number(read_values(path), file.layout.rank, path)
        return -score if score is not None else np.inf, file.sample, str(file.path)

    return min(files, key=rank) if len(files) > 1 else files[0]


def _confidences(best: Found, every: Sequence[Chain], chains: Sequence[Chain]) -> tuple[np.ndarray, ...]:
    """pLDDT of the atoms of the chains as written: the B-factors, or what lies beside where these are all one value."""
    values = np.concatenate([chain.bfactors for chain in every])
    if len(values) == 1 or np.ptp(values) > 0:
        return tuple(chain.bfactors for chain in chains)
    path = best.beside(best.layout.details)
    beside = None if path is None else array(read_values(path), best.layout.plddt, path)
    if path is None or beside is None:
        return ()
    residues = sum(map(len, every))
    if beside.ndim == 1 and len(beside) == residues:
        starts = dict(zip(map(id, every), np.cumsum([0, *map(len, every)]).tolist(), strict=False))
        return tuple(beside[starts[id(chain)] + chain.owners] for chain in chains)
    if beside.ndim == 1 and len(beside) > max(int(chain.places.max()) for chain in every):
        return tuple(beside[chain.places] for chain in chains)
    raise InputError(
        f"{path}: {best.layout.plddt} has {'x'.join(map(str, beside.shape))} values; {best.path.name} has "
        f"{residues} residues and {len(values)} atoms."
    )


def _scale(raw: Mapping[str, tuple[Found, tuple[Chain, ...], tuple[np.ndarray, ...]]]) -> str | None:
    """The scale of a folder, None without confidences. A single file cannot tell 0.9 of 1 from 0.9 of 100."""
    largest, where = -1.0, None
    for best, _, values in raw.values():
        if not values:
            continue
        low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
        if low < 0 or not np.isfinite(high):
            raise InputError(f"{best.path}: the B-factor column holds {low:g}, which is not a confidence.")
        if high > largest:
            largest, where = high, best.path
    scale = None if where is None else scale_of(largest, where)
    if scale == LARGE:
        for best, _, values in raw.values():
            if values and max(float(v.max()) for v in values) <= 1:
                raise InputError(
                    f"confidences in two scales: {where} goes up to {largest:g}, {best.path} to 1. "
                    "Predict all designs with one program."
                )
    return scale


def _overall(best: Found, several: bool) -> tuple[float | None, float | None]:
    """pTM and, of several chains, ipTM from the file beside the structure."""
    path = best.beside(best.layout.scores)
    if path is None:
        return None, None
    values = read_values(path)
    return share(values, "ptm", path), share(values, "iptm", path) if several else None


def _pae(best: Found, residues: int) -> Float[np.ndarray, "L L"] | None:
    """The matrix of errors; None where it is not written, or covers more than the chains of the design."""
    path = best.beside(best.layout.pae_file)
    found = None if path is None else array(read_values(path), best.layout.pae, path)
    return found if found is not None and found.shape == (residues, residues) else None


def _messages(
    folder: Path, name: str, designs: Sequence[Sample], found: Mapping[str, list[Found]], strange: Sequence[Path],
    scale: str | None,
) -> list[str]:  # fmt: skip
    """What was read, what was not, and on which scale."""
    several = max(len(files) for files in found.values())
    many = f", the best of up to {several} samples each" if several > 1 else ""
    if several > 1 and all(files[0].layout is PLAIN for files in found.values()):
        chosen = next(files for files in found.values() if len(files) > 1)
        many = f", the first by path of up to {several} files each ({best_sample(chosen).path.relative_to(folder)})"
    known = f"pLDDT on the scale {scale}" if scale else "without pLDDT"
    who = "structures" if name == folder.resolve().name else f"structures of {name}"
    lines = [f"{who} from {folder}: {len(found):,} of {len(designs):,} designs{many}, {known}"]
    missing = [design.id for design in designs if design.id not in found]
    for kind, names in (("no structure of", missing), ("not of a design:", [path.name for path in strange])):
        if names:
            lines.append(f"{folder}: {kind} {', '.join(names[:SHOWN])}" + (
                f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
            ))  # fmt: skip
    return lines
