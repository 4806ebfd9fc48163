"""Whether a change moves a result: weights and samples of a commit and of the working tree, bit by bit.

    python benchmarks/baseline.py --before main [--quick] [--only 'sample/*'] [--keep FOLDER]

Hashes differ between processors, so none is recorded: both trees run the same short commands on this machine, in turn
and in one call (``baseline_cases.py``). Each command has a process of its own, which finds the packages of the project
in its own tree whatever is installed (``baseline_sides.py``). What is compared is the content of tensors and of sample
files; a moved result that is meant is listed in ``EXPECTED``.

Exit codes: 0 nothing moved but what is expected; 1 something else moved, or a command failed; 2 the call is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path

import torch
from baseline_cases import CASES, EXPECTED, RENAMED
from baseline_sides import Side, packages, warm_up

HERE = Path(__file__).resolve().parent.parent
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
Digests = dict[str, str]  # SHA-256 by part of what a case wrote


def sha256(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def tensors(path: Path) -> Digests:
    """Digest of each tensor of a safetensors file: its type, shape and bytes."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    about = json.loads(content[8:start])
    about.pop("__metadata__", None)
    bounds = {name: [start + offset for offset in one["data_offsets"]] for name, one in about.items()}
    return {
        name: sha256(f"{one['dtype']} {one['shape']} ".encode() + content[slice(*bounds[name])])
        for name, one in about.items()
    }


def weights(run: Path) -> Digests:
    """Digest of every file of weights in a run. In checkpoints tensors may be renamed, in what a run ends with not."""
    parts = {}
    for path in sorted(run.rglob("*.safetensors")):
        place, stem = path.relative_to(run).parent, RENAMED.get(path.stem, path.stem)
        each = tensors(path)
        lines = each.values() if "checkpoints" in place.parts else map(" ".join, each.items())
        parts[f"{place}/{stem}"] = sha256("\n".join(sorted(lines)))
    return parts


def samples(path: Path) -> Digests:
    """Digests of a file of samples: the texts alone, and the whole of it with what it records."""
    lines = path.read_text().splitlines()
    if path.suffix == ".jsonl":
        texts = [json.loads(line)["text"] for line in lines]
    else:
        texts = [line for line in lines if not line.startswith(">")]
    return {"texts": sha256(json.dumps(texts)), "record": sha256(path.read_bytes())}


def moved(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Parts that are not the same. One that is there under another name with the same content has not moved."""
    changed = [name for name in before if name in after and before[name] != after[name]]
    lost = {name: digest for name, digest in before.items() if name not in after}
    new = {name: digest for name, digest in after.items() if name not in before}
    for name, digest in list(lost.items()):
        found = next((other for other, same in new.items() if same == digest), None)
        if found is not None:
            del lost[name], new[found]
    return [*changed, *(f"{name} (gone)" for name in lost), *(f"{name} (new)" for name in new)]


@dataclass
class Comparison:
    """Both sides, and what their cases wrote. ``inputs``: files that cases read, by name."""

    before: Side
    after: Side
    inputs: Mapping[str, Path]
    done: dict[tuple[str, str], tuple[Digests, str]] = field(default_factory=dict)

    def result(self, side: Side, name: str) -> tuple[Digests, str]:
        """Digests of what a case wrote on one side, and what went wrong. It runs once."""
        key = (side.label, name)
        if key not in self.done:
            self.done[key] = self._run(side, name)
        return self.done[key]

    def _run(self, side: Side, name: str) -> tuple[Digests, str]:
        case, path = CASES[name], side.path(name)
        if case.run:
            if self.result(self.before, case.run)[1]:
                return {}, f"{case.run} failed before, and its student is what is sampled"
            out = path / f"samples.{'fasta' if '/protein/' in name else 'jsonl'}"
            problem = side.run(name, case, (f"run={self.before.path(case.run) / 'run'}", f"out={out}"), self.inputs)
            return (samples(out) if not problem else {}), problem
        problem = side.run(name, case, (f"run_dir={path / 'run'}",), self.inputs)
        parts = weights(path / "run")
        if not problem and not parts:
            problem = "it wrote no weights"
        if not problem and case.like and moved(self.result(side, case.like)[0], parts):
            problem = f"it does not end as {case.like} does"
        return parts, problem

    def row(self, name: str) -> tuple[str, str, str, bool]:
        """Before, after, the verdict, and whether all is well."""
        (old, problem), (new, trouble) = self.result(self.before, name), self.result(self.after, name)
        shown = tuple(sha256(json.dumps(parts, sort_keys=True))[:10] if parts else "-" for parts in (old, new))
        if problem or trouble:
            said = "; ".join(f"{side}: {what}" for side, what in (("before", problem), ("after", trouble)) if what)
            return *shown, f"FAILED {said}", False
        reasons = {part: expected(name, part) for part in moved(old, new)}
        if not reasons:
            return *shown, f"equal ({len(old)} parts)", True
        if all(reasons.values()):
            return *shown, f"moved as expected: {'; '.join(dict.fromkeys(reasons.values()))}", True
        return *shown, f"MOVED {', '.join(part for part, why in reasons.items() if not why)}", False


def expected(name: str, part: str) -> str:
    """Why this part of this case may move; empty where it may not."""
    return next((why for pattern, why in EXPECTED.items() if fnmatchcase(f"{name} {part}", pattern)), "")


def checkout(revision: str, folder: Path) -> tuple[Path, str]:
    """The tree of a revision, unpacked into the folder, or a folder as it is; and what to call it."""
    if Path(revision).is_dir():
        return Path(revision).resolve(), revision
    asked = ["git", "rev-parse", "--short", f"{revision}^{{commit}}"]
    found = subprocess.run(asked, cwd=HERE, capture_output=True, text=True, check=False)
    if found.returncode:
        raise ValueError(f"{revision!r} is neither a folder nor a commit ({found.stderr.strip().splitlines()[-1]})")
    name = found.stdout.strip()
    archive = subprocess.run(["git", "archive", name], cwd=HERE, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as packed:
        packed.extractall(folder, filter="data")
    return folder.resolve(), name


def write_proteins(path: Path) -> Path:
    """Random sequences to train on: what they are does not matter."""
    draw = random.Random(0)
    rows = ("".join(draw.choices("ACDEFGHIKLMNPQRSTVWY", k=draw.randint(30, 60))) for _ in range(200))
    path.write_text("".join(f">p{i}\n{row}\n" for i, row in enumerate(rows)))
    return path


def chosen(only: Sequence[str], quick: bool) -> list[str]:
    """Names of the cases to run. Raises ValueError for a pattern that fits none."""
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in CASES):
            raise ValueError(f"--only {pattern!r} fits no case. They are:\n  " + "\n  ".join(CASES))
    fits = [name for name in CASES if not only or any(fnmatchcase(name, pattern) for pattern in only)]
    return [name for name in fits if CASES[name].quick or not quick]


def compare(names: Sequence[str], both: Comparison) -> bool:
    """Print the table, each row as soon as it is known. True where all is well."""
    width = max(map(len, names))
    print(f"\n{'case':<{width}}  {'before':<10}  {'after':<10}")
    good = True
    for name in names:
        before, after, verdict, well = both.row(name)
        print(f"{name:<{width}}  {before:<10}  {after:<10}  {verdict}", flush=True)
        good &= well
    return good


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="baseline.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", required=True, metavar="REV", help="commit, or a folder that holds another tree")
    parser.add_argument("--after", default=str(HERE), metavar="FOLDER", help="the other tree; default: this one")
    parser.add_argument("--quick", action="store_true", help="fewer cases")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="cases such as 'sample/toy/*'")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="empty folder for what the commands write")
    given, began = parser.parse_args(arguments), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="baseline_") as made:
        folder = (given.keep or Path(made, "runs")).resolve()
        try:
            names = chosen(given.only, given.quick)
            root, called = checkout(given.before, Path(made, "tree"))
        except ValueError as error:
            parser.error(str(error))
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            parser.error(f"--keep {given.keep}: the folder is not empty")
        before = Side("before", root, folder / "before")
        after = Side("after", Path(given.after).resolve(), folder / "after")
        for side, name in ((before, called), (after, given.after)):
            print(f"{side.label:<6}  {name}: {', '.join(packages(side.root))} of {side.root}")
        os.environ.update(ENVIRONMENT)
        torch.set_num_threads(1)  # inherited by what is forked
        warm_up()
        good = compare(names, Comparison(before, after, {"proteins": write_proteins(folder / "proteins.fasta")}))
    verdict = "all is well" if good else "something moved or failed"
    took = f"{time.monotonic() - began:.0f} s (before {before.seconds:.0f}, after {after.seconds:.0f})"
    print(f"\n{len(names)} cases in {took}: {verdict}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
