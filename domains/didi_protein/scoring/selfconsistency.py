"""Self-consistency: a design's structure is given to an inverse-folding program, and what it writes is folded again.

The program is a command of the user's in an environment of its own, such as ProteinMPNN's or ESM-IF's script. It gets
a structure as ``{pdb}``, or all in the folder ``{pdbs}`` so that it starts once, and writes FASTA files into the folder
``{out}``, which are named after the structures where there are several; ``{num}`` and ``{seed}`` may be used too.
Its sequences are folded by the predictor of the designs, or by any other whose structures are in ``refolded``.

scTM is the highest TM-score of the refolded structures to the design's (Trippe et al. 2022, arXiv 2206.04119), scRMSD
the lowest RMSD, both of CA atoms; below 2 angstroms a backbone is called designable (Yim et al. 2023).
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from didi_core.domain.scoring import Job
from didi_core.errors import InputError
from didi_core.storage.files import sha256, write_atomic
from didi_core.storage.sample_files import FASTA, format_of
from didi_core.types import Sample

from ..design_report.designs import STRUCTURES, structure_name
from ..fasta import read_fasta, without_breaks, write_fasta
from ..programs import output_of
from ..structures.atoms import ca_positions
from ..structures.folder import best_sample, find
from ..structures.superposition import rmsd, tm_score
from .choice import Choice, choose
from .complexes import LINKER, joined_length
from .folding import Folded, batches, fold_within_memory
from .hashes import Hashes
from .kept import Kept, Rows, program_stamp, stamp, weights_stamp
from .sequence import plain
from .settings import ProteinScoring

PDB, PDBS, OUT, NUM, SEED = "{pdb}", "{pdbs}", "{out}", "{num}", "{seed}"
SEQUENCES, FOLDER = "selfconsistency.fasta", "selfconsistency"
DESIGNABLE = 2.0  # angstroms


@dataclass(frozen=True)
class InverseFolding:
    """The user's command, and how many sequences of a structure it is to write.

    Raises:
        InputError: the command does not say where structure and sequences are, or its program is not there.
    """

    command: str
    num: int
    seed: int = 0

    def __post_init__(self) -> None:
        if fault := self._fault():
            raise InputError(
                f"selfconsistency={self.command!r} {fault}: write the command with {PDB} for the structure file, or "
                f"{PDBS} for a folder of all of them, and {OUT} for the folder of its FASTA files ({NUM} and {SEED} if "
                "it takes them)."
            )
        if shutil.which(self.words[0]) is None:
            raise InputError(f"selfconsistency={self.command!r}: {_not_run(self.words[0])}.")

    def _fault(self) -> str:
        """What is wrong with the places of the command, in words; '' where nothing is."""
        if PDB in self.command and PDBS in self.command:
            return f"has both {PDB} and {PDBS}"
        if PDB not in self.command and PDBS not in self.command:
            return f"lacks {PDB}"
        return "" if OUT in self.command else f"lacks {OUT}"

    @property
    def together(self) -> bool:
        """Whether one call is for all structures."""
        return PDBS in self.command

    @property
    def words(self) -> list[str]:
        try:
            return shlex.split(self.command)
        except ValueError as error:
            raise InputError(f"selfconsistency={self.command!r} is no command line ({error}).") from None

    def sequences(self, structures: Mapping[Path, int]) -> list[list[str]]:
        """The sequences that the program writes for structures, at most ``num`` of each, from one call.

        Args:
            structures: files, and how many residues each has; one file for a command with ``{pdb}``.

        Raises:
            InputError: the program fails, or writes no sequence of that length for a structure.
        """
        with tempfile.TemporaryDirectory() as name:
            out, given = Path(name, "out"), Path(name, "structures")
            out.mkdir()
            first = next(iter(structures))
            if self.together:
                given.mkdir()
                for path in structures:
                    shutil.copy(path, given)
            known = {PDB: str(first.resolve()), PDBS: str(given), OUT: str(out)}
            known |= {NUM: str(self.num), SEED: str(self.seed)}
            words = [_filled(word, known) for word in self.words]
            output_of(words, f"selfconsistency: {shlex.join(words)}")
            files = sorted(path for path in out.rglob("*") if path.is_file() and format_of(path) == FASTA)
            found = {path: read_fasta(path, complexes=True).samples for path in files}
        if not found:
            raise InputError(f"selfconsistency: {shlex.join(words)} wrote no FASTA file into {OUT}.")
        return [self._chosen(pdb, length, found) for pdb, length in structures.items()]

    def _chosen(self, pdb: Path, length: int, found: Mapping[Path, Sequence[Sample]]) -> list[str]:
        """The sequences of one structure, from what the program wrote by file."""
        own = [s for path, samples in found.items() for s in samples if not self.together or path.stem == pdb.stem]
        numbered = [sample for sample in own if "sample" in sample.info]  # ProteinMPNN's first record is the design
        texts = [sample.text for sample in numbered or own][: self.num]
        if not texts:
            raise InputError(
                f"selfconsistency: the program wrote nothing for {pdb.name}: with {PDBS} its FASTA files have the "
                f"names of the structures, as {pdb.stem}.fa; it wrote {', '.join(p.name for p in list(found)[:4])}."
            )
        for number, text in enumerate(texts, start=1):
            here = len(without_breaks(text))
            if here != length:
                raise InputError(
                    f"selfconsistency: sequence {number} for {pdb.name} has {here} residues, the structure {length}."
                )
        return texts


def _not_run(program: str) -> str:
    """Why a program cannot be run, and what to do."""
    if not Path(program).is_file():
        return f"there is no program {program!r} on the PATH"
    if "/" not in program:
        return f"there is no program {program!r} on the PATH, but a file in this folder: write ./{program}"
    return f"{program} may not be executed: chmod +x {program}"


def _filled(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def consistency(
    folder: Path,
    designs: Sequence[Sample],
    settings: ProteinScoring,
    program: InverseFolding | None,
    weights: Path | None,
    job: Job,
) -> Rows:
    """Columns of the designs with a structure, from what the program writes or from structures of it.

    Args:
        weights: of the predictor; None where nothing is folded here.
    """
    there = with_structure(folder, designs)
    if not there:
        job.message("self-consistency: none, as no design has a structure")
        return {}
    rows: Rows = {}
    if settings.refolded is not None:
        rows = refolded_columns(folder, there, settings.refolded, settings.selfconsistency_num)
    elif program is not None:
        written = write_sequences(folder, there, program, job)
        rows = refold(folder, there, written, settings, weights, job)
        for design in there:
            if "sc_rmsd" not in rows.get(design.id, {}):
                (folder / FOLDER / structure_name(design.id)).unlink(missing_ok=True)
    log_consistency(rows, job)
    return rows


def with_structure(folder: Path, designs: Sequence[Sample]) -> list[Sample]:
    """The designs of which there is a structure in ``pdb/``."""
    return [design for design in designs if structure_of(folder, design.id).is_file()]


def write_sequences(folder: Path, designs: Sequence[Sample], program: InverseFolding, job: Job) -> dict[str, list[str]]:
    """Sequences for every design's structure, by id; they go into ``selfconsistency.fasta`` as ``<id>_sc1`` ..."""
    called = stamp(program_stamp(program.words), str(program.num))
    stamps = {design.id: stamp(called, sha256(structure_of(folder, design.id))) for design in designs}
    kept = Kept(folder, "inverse", stamps, "structure or program")
    known = {name: row["sequences"] for name, row in kept.rows(job.message).items()}
    left = [design for design in designs if design.id not in known]
    job.bar.start("score: inverse folding", len(designs), len(designs) - len(left))
    for some in [left] * bool(left) if program.together else [[design] for design in left]:
        lengths = {structure_of(folder, design.id): len(without_breaks(design.text)) for design in some}
        rows = list(zip((design.id for design in some), program.sequences(lengths), strict=True))
        kept.append([(name, {"sequences": texts}) for name, texts in rows])
        known.update(rows)
        job.bar.advance(by=len(some))
    job.bar.stop()
    write_fasta(
        folder / SEQUENCES,
        [
            Sample(text, refold_name(design.id, number), info={"of": design.id})
            for design in designs
            for number, text in enumerate(known[design.id], start=1)
        ],
    )
    return known


def refold_name(design: str, number: int) -> str:
    """The id of one of a design's sequences."""
    return f"{design}_sc{number}"


def refold(
    folder: Path,
    designs: Sequence[Sample],
    sequences: Mapping[str, Sequence[str]],
    settings: ProteinScoring,
    weights: Path | None,
    job: Job,
) -> Rows:
    """Columns of every design, its sequences folded by the predictor; the best structure is kept.

    The predictor is chosen, and loaded, where there is something left to fold.
    """
    model = weights_stamp(weights, Hashes.of_folder(folder))
    stamps = {d.id: stamp(model, *sequences[d.id], sha256(structure_of(folder, d.id))) for d in designs}
    kept = Kept(folder, "selfconsistency", stamps, "structure, sequence or model of fold")
    rows = kept.rows(job.message)
    left = [design for design in designs if design.id not in rows]
    if not left:
        return rows
    choice = Choice(None, "no weights of a predictor are used")
    if weights is not None:
        texts = [text for design in left for text in sequences[design.id]]
        lengths = [joined_length(text, settings.linker or LINKER) for text in texts]
        choice = choose(settings, weights, job.machine.device, lengths, job.seed)
    predictor = choice.folder
    if predictor is None:
        job.message(
            f"self-consistency: the sequences are in {folder / SEQUENCES} and are not folded here ({choice.reason}). "
            "Fold them with any predictor, and score with refolded=<its folder> in place of selfconsistency."
        )
        return rows
    job.bar.start("score: self-consistency", len(designs), len(designs) - len(left))
    for design in left:
        own = sequences[design.id]
        made: list[Folded | None] = [None] * len(own)
        for batch in batches(list(map(len, own)), settings.tokens):
            folded = fold_within_memory(predictor, [own[i] for i in batch], job.message)
            for i, one in zip(batch, folded, strict=True):
                made[i] = one
        rows[design.id] = _compared(folder, design.id, made)
        if all(one is not None for one in made):  # else memory did not suffice, and another attempt may succeed
            kept.append([(design.id, rows[design.id])])
        job.bar.advance()
    job.bar.stop()
    return rows


def _compared(folder: Path, design: str, made: Sequence[Folded | None]) -> dict[str, Any]:
    """The columns of a design, from its folded sequences."""
    whole = [one for one in made if one is not None and one.finite]
    if not whole:
        return {"sc_sequences": 0}
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / f"{i}.pdb" for i in range(len(whole))]
        for path, one in zip(paths, whole, strict=True):
            path.write_text(one.pdb)
        row, best = columns(ca_positions(structure_of(folder, design)), paths)
    write_atomic(folder / FOLDER / structure_name(design), whole[best].pdb)
    return {**row, "sc_plddt": plain(whole[best].plddt_ca)}


def refolded_columns(folder: Path, designs: Sequence[Sample], refolded: Path, most: int) -> Rows:
    """Columns from structures that another predictor made of ``selfconsistency.fasta``.

    Raises:
        InputError: the folder holds none of them, or a structure has another number of residues than its design.
    """
    names = {refold_name(design.id, k): design.id for design in designs for k in range(1, most + 1)}
    found, _ = find(refolded, list(names), "refolded")
    paths: dict[str, list[Path]] = {}
    for name, files in found.items():
        paths.setdefault(names[name], []).append(best_sample(files).path)
    return {
        design.id: columns(ca_positions(structure_of(folder, design.id)), paths[design.id])[0]
        for design in designs
        if design.id in paths
    }


def columns(target: Float[np.ndarray, "L 3"], paths: Sequence[Path]) -> tuple[dict[str, Any], int]:
    """scRMSD, scTM and the number of structures, and which structure has the lowest RMSD."""
    distances, scores = [], []
    for path in paths:
        atoms = ca_positions(path)
        if atoms.shape != target.shape:
            raise InputError(f"{path} has {len(atoms)} residues, its design {len(target)}.")
        distances.append(rmsd(atoms, target))
        scores.append(tm_score(atoms, target))
    row = {"sc_rmsd": plain(min(distances)), "sc_tm": plain(max(scores)), "sc_sequences": len(paths)}
    return row, int(np.argmin(distances))


def log_consistency(rows: Rows, job: Job) -> None:
    """How many designs refold to themselves, in one line."""
    known = [row for row in rows.values() if "sc_rmsd" in row]
    if known:
        near = sum(row["sc_rmsd"] <= DESIGNABLE for row in known)
        middle = np.median([row["sc_tm"] for row in known])
        job.message(
            f"self-consistency: {near:,} of {len(known):,} designs refold within {DESIGNABLE:g} A (best of up to "
            f"{max(row['sc_sequences'] for row in known)} sequences), median scTM {middle:.2f}"
        )


def structure_of(folder: Path, design: str) -> Path:
    """Where the structure of a design is, if it has one."""
    return folder / STRUCTURES / structure_name(design)
