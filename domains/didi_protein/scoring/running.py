"""``score``: one kind of score after another; each score is appended to a journal, and the table is updated.

scores.csv scores.jsonl   a row per design, the best first
pdb/<id>.pdb              structures; pae/<id>.npz where asked for
parts/*.jsonl             what was scored so far; a repeated command goes on from it
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from didi_core.checkpoints.hub import locate
from didi_core.config import user_path
from didi_core.domain.scoring import Job
from didi_core.errors import InputError
from didi_core.storage.files import write_atomic
from didi_core.types import Sample

from ..design_report import summary, write_design_report
from ..design_report.designs import PLDDT, PLDDT_CA, RESIDUES, STRUCTURES, structure_name
from ..fasta import without_breaks
from ..nearest.choice import check_installed, chosen, make_search
from ..nearest.neighbour import Search
from .again import folds
from .board import (
    CLUSTERS,
    CONSISTENCY,
    ERRORS,
    FOLD,
    FOLDSEEK,
    MOTIFS,
    OTHERS,
    PPPL,
    SEQUENCE,
    Board,
    remove_structure,
)
from .choice import Choice, choose, load, model_folder
from .complexes import LINKER, check_linker, joined_length
from .esmfold import longest_of
from .folding import Folded, Folder, batches, fold_within_memory
from .foldseek import check as check_foldseek
from .foldseek import foldseek_columns
from .foldseek import wanted as foldseek_wanted
from .hashes import Hashes
from .kept import OUT_OF_MEMORY, stamp, weights_stamp
from .motifs import log_motifs, log_success, motif_columns, references
from .pseudo import PACKAGE, check_package, kind_of, load_pseudo, package_release, pseudo_perplexity
from .reading import Reference, read_reference
from .selfconsistency import InverseFolding, consistency
from .sequence import cluster_columns, plain, sequence_scores
from .settings import AUTO, NONE, ProteinScoring
from .structures import read_structures, structure_columns
from .views import write_views
from .workers import FEWEST, mapped

STAGE_LINES = 64  # sequences scored between two writes of the journal


def score_designs(designs: Sequence[Sample], settings: ProteinScoring, job: Job) -> list[dict[str, Any]]:
    """Score designs without scores, write everything, and return all rows, the best first.

    Several processes share the designs, and each keeps its rows at once in a journal of its own. What looks at all
    designs together (clusters, structures of other predictors, motifs, the report) is left to the first.

    Raises:
        InputError: models or references are missing or do not fit; raised before anything is computed.
    """
    folder = job.run.path
    check_names(designs)
    check_package(settings.pppl)
    weights = model_folder(settings) if folds(settings) else None
    check_linker(settings.linker, [design.text for design in designs], None if weights is None else longest_of(weights))
    judge = None if settings.pppl == NONE or settings.pppl.startswith(PACKAGE) else locate(settings.pppl, "pppl")
    if judge is not None:
        kind_of(settings.pppl, judge)
    if settings.reference:
        check_installed(settings.novelty)
    check_foldseek(settings)
    reference = None if not settings.reference else read_reference(settings.reference, designs, job.message)
    read = read_structures(settings.structures or (), designs, job)
    if read:
        named = zip(read, settings.structures or (), strict=True)
        job.run.note(structures=", ".join(f"{one.name} ({path})" for one, path in named))
    motifs = references(designs, settings.motif)
    if read or weights is not None:
        log_motifs(designs, motifs, job)
    command = settings.selfconsistency
    program = None if command is None else InverseFolding(command, settings.selfconsistency_num, job.seed)
    made_from = partial(_made_from, designs, settings, reference, weights, judge, Hashes.of_folder(folder))
    board = Board.open(designs, folder, job.processes, made_from, job.message)
    if job.processes.first and (folds(settings) or not read):
        board.clear_structures()
    try:
        with job.run.stage(SEQUENCE):
            score_sequences(board, settings, reference, job)
        if job.processes.first:
            board.computed[CLUSTERS] = _clusters(designs)
        board.write()
        if settings.pppl != NONE:
            with job.run.stage(PPPL):
                score_pseudo(board, settings, judge, job)
        with job.run.stage(FOLD):
            fold_all(board, settings, weights, job)
        if not job.processes.first:
            return board.rows()
        if read:
            with job.run.stage(OTHERS):
                board.computed[OTHERS] = structure_columns(folder, designs, read, folds(settings), job)
        if program is not None or settings.refolded is not None:
            with job.run.stage(CONSISTENCY):
                refolds = weights if folds(settings) else None
                board.computed[CONSISTENCY] = consistency(folder, designs, settings, program, refolds, job)
        if foldseek_wanted(settings):
            with job.run.stage(FOLDSEEK):
                board.computed[FOLDSEEK] = foldseek_columns(folder, designs, settings, job)
        board.computed[MOTIFS] = motif_columns(folder, designs, motifs)
        log_success(board.rows(), job)
        write_views(folder, board.rows(), motifs, settings.mmcif)
    finally:
        board.write()
    if settings.report:
        page = write_design_report(folder, provenance(job, settings))
        job.message(summary(folder))
        job.message(f"report: {page}")
    return board.rows()


def _made_from(
    designs: Sequence[Sample],
    settings: ProteinScoring,
    reference: Reference | None,
    weights: Path | None,
    judge: Path | None,
    hashes: Hashes,
) -> dict[str, tuple[str | None, str] | None]:
    """What each kind of score that is kept comes from, beside the designs: as ``Board.open`` asks for it."""
    known: tuple[str, ...] = ()
    if reference is not None:
        texts = [without_breaks(design.text) for design in designs]
        method, _ = chosen(settings.novelty, texts, reference.sequences)
        known = (method, *reference.names, *reference.sequences)
    package = ""
    if settings.pppl.startswith(PACKAGE):
        package, own = package_release(), user_path(settings.pppl.removeprefix(PACKAGE))
        judge = own if own.is_dir() else None
    made: dict[str, tuple[str | None, str] | None] = {
        SEQUENCE: (stamp(*known), "reference or search for the nearest protein"), PPPL: None, FOLD: None,
    }  # fmt: skip
    if settings.pppl != NONE:
        drawn = str(settings.pppl_positions or "")
        made[PPPL] = stamp(package, weights_stamp(judge, hashes), drawn), "model or positions of pppl"
    if folds(settings):
        made[FOLD] = None if weights is None else stamp(weights_stamp(weights, hashes)), "model of fold"
    return made


def check_names(designs: Sequence[Sample]) -> None:
    """Raise InputError for a design without a name, or two designs with the same name."""
    seen: dict[str, int] = {}
    for number, design in enumerate(designs, start=1):
        if not design.id or design.id.split() != [design.id]:
            raise InputError(f"design {number} has the id {design.id!r}: an id is one word.")
        if design.id in seen:
            raise InputError(f"designs {seen[design.id]} and {number} have the same id {design.id!r}. Rename one.")
        seen[design.id] = number


def score_sequences(board: Board, settings: ProteinScoring, reference: Reference | None, job: Job) -> None:
    """Scores that need no network."""
    left = job.processes.mine(board.left(SEQUENCE))
    search: Search | None = None
    names: Sequence[str] = ()
    if reference is not None and left:
        threads = torch.get_num_threads() if len(left) < FEWEST else 1  # processes share the work where there are many
        texts = [without_breaks(design.text) for design in board.designs]
        asked = [without_breaks(design.text) for design in left]
        search = make_search(settings.novelty, texts, asked, reference.sequences, job.message, threads=threads)
        names = reference.names

    def one(design: Sample) -> dict[str, Any]:
        return sequence_scores(design.text, search, names)

    _each(board, SEQUENCE, left, job, mapped(one, left), STAGE_LINES)


def score_pseudo(board: Board, settings: ProteinScoring, folder: Path | None, job: Job) -> None:
    """Pseudo-perplexity of every design."""
    everything = board.left(PPPL)
    if not everything:
        return
    left = job.processes.mine(everything)
    logits = load_pseudo(settings.pppl, folder, job.machine.device)

    def one(design: Sample) -> dict[str, Any]:
        return {"pppl": plain(pseudo_perplexity(logits, design.text, settings.pppl_positions, job.seed))}

    _each(board, PPPL, left, job, map(one, left), 1)


def _each(
    board: Board, kind: str, left: Sequence[Sample], job: Job, rows: Iterable[Mapping[str, Any]], at_once: int
) -> None:
    """Keep the rows of designs, ``at_once`` rows per write, with a bar."""
    job.bar.start(f"score: {kind}", len(board.designs), len(board.designs) - len(left))
    scored = zip((design.id for design in left), rows, strict=True)
    while some := list(islice(scored, at_once)):
        board.add(kind, some)
        job.bar.advance(by=len(some) * job.processes.size)
    job.bar.stop()
    board.collect(kind)


def fold_all(board: Board, settings: ProteinScoring, weights: Path | None, job: Job) -> None:
    """Choose a predictor, report the choice in one line, and predict every missing structure."""
    if settings.structures and settings.fold == AUTO:
        job.message("fold=auto: none, as structures are given")
        return
    left = board.left(FOLD)
    if not left:
        job.message("fold: every design was folded before")
        return
    lengths = [joined_length(design.text, settings.linker or LINKER) for design in left]
    choice = _choice(settings, weights, lengths, job)
    job.message(choice.reason)
    job.run.note(fold=choice.reason)
    if choice.folder is None:
        return
    job.bar.start("score: fold", len(board.designs), len(board.designs) - len(left))
    for batch in job.processes.mine(list(batches(lengths, settings.tokens))):
        some = [left[i] for i in batch]
        made = fold_within_memory(choice.folder, [design.text for design in some], job.message)
        pairs = zip(some, made, strict=True)
        board.add(FOLD, [(d.id, fold_row(board.folder, d.id, f, choice.folder, settings.pae)) for d, f in pairs])
        job.bar.advance(by=len(some) * job.processes.size)
    job.bar.stop()
    board.collect(FOLD)
    failed = [name for name, row in board.known[FOLD].items() if row["status"] != "ok"]
    if failed:
        shown = ", ".join(failed[:5]) + (", ..." if len(failed) > 5 else "")
        job.message(
            f"{len(failed)} designs could not be folded ({shown}): see the column status; "
            f"the same command tries those of status={OUT_OF_MEMORY} again"
        )


def _choice(settings: ProteinScoring, weights: Path | None, lengths: Sequence[int], job: Job) -> Choice:
    """The predictor. The first process decides, by a measured step; the others load the same."""
    device, processes = job.machine.device, job.processes
    if processes.first:
        made = choose(settings, weights, device, lengths, job.seed)
        processes.broadcast((made.folder is not None, made.reason))
        return made
    folds_here, reason = processes.broadcast((False, ""))
    return Choice(load(settings, weights, device, job.seed) if folds_here and weights else None, reason)


def fold_row(folder: Path, name: str, made: Folded | None, folder_model: Folder, errors: bool) -> dict[str, Any]:
    """Scores of a structure, whose files are written first. ``status``: ok, oom (memory) or failed (not a number)."""
    remove_structure(folder, name)
    if made is None:
        return {"status": OUT_OF_MEMORY, "folded_by": folder_model.name}
    if not made.finite:
        return {"status": "failed", "folded_by": folder_model.name}
    write_atomic(folder / STRUCTURES / structure_name(name), made.pdb)
    if errors:
        target = folder / ERRORS / structure_name(name, "npz")
        write_atomic(target, lambda path: _save(path, made.pae))
    return {
        "status": "ok",
        "folded_by": folder_model.name,
        PLDDT: plain(made.plddt),
        PLDDT_CA: plain(made.plddt_ca),
        "ptm": plain(made.ptm),
        **({} if made.iptm is None else {"iptm": plain(made.iptm), "ipae": plain(made.ipae)}),
        "pae": plain(float(made.pae.mean())),
        RESIDUES: [round(float(value), 2) for value in made.residues],
    }


def _save(path: Path, errors: np.ndarray) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, pae=errors.astype(np.float32))


def _clusters(designs: Sequence[Sample]) -> dict[str, dict[str, Any]]:
    """Columns of clusters, by design."""
    columns = cluster_columns([without_breaks(design.text) for design in designs])
    return {design.id: {name: column[i] for name, column in columns.items()} for i, design in enumerate(designs)}


def provenance(job: Job, settings: ProteinScoring) -> dict[str, Any]:
    """The settings behind the scores, for the end of the report."""
    record = job.run.record
    return {
        "command": " ".join(record.get("command_line", [])),
        "structures": "; ".join(record[key] for key in ("fold", "structures") if key in record) or "none",
        "reference": ", ".join(path.name for path in settings.reference or ()) or "none",
        "pseudo-perplexity": settings.pppl,
        **({"foldseek": record["foldseek"]} if "foldseek" in record else {}),
        "git_commit": record.get("git_commit"),
        "device": record.get("device"),
        "versions": record.get("versions", {}),
    }
