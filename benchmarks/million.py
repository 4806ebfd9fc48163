"""A million proteins from a FASTA file to the first batch: with the split by similarity made, then with it kept.

    python benchmarks/million.py [--count 1000000] [--quick] [--out FILE]

Unrelated sequences of 100 to 440 residues with headers of UniRef, 350 MB, in a folder that is removed. Each way is a
process of its own: seconds from its start by the clock and of CPU, and its peak of resident memory. ``OMP_NUM_THREADS``
says how many threads the split may use.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HEADER = ">UniRef50_A{0:07d} Uncharacterized protein n={1} Tax=Bacteria TaxID={0} RepID=X"
AT_ONCE = 20_000


def write(path: Path, count: int) -> None:
    """So many unrelated proteins."""
    random = np.random.default_rng(0)
    letters = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", dtype=np.uint8)
    with path.open("w") as file:
        for first in range(0, count, AT_ONCE):
            lengths = random.integers(100, 441, min(AT_ONCE, count - first))
            text = letters[random.integers(0, 20, lengths.sum(), dtype=np.uint8)].tobytes().decode()
            ends = np.cumsum(lengths).tolist()
            for i, (start, end) in enumerate(zip([0, *ends], ends, strict=False), start=first):
                file.write(f"{HEADER.format(i, i % 9 + 1)}\n{text[start:end]}\n")


def to_first_batch(path: Path, start: float) -> dict[str, float]:
    """What this process, started at a time, has used after the first batch of 32."""
    from didi_protein.domain import ProteinDomain

    domain = ProteinDomain(path, max_length=512)
    rows = len(next(domain.batches("train", 32, 0)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
    used = {"seconds": time.time() - start, "cpu_seconds": time.process_time(), "peak_gb": peak}
    return {"rows": rows, "proteins": len(domain.samples), **used}


def main() -> None:
    """Both ways, each in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="21,000 proteins: shows that it runs")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)  # the fresh process
    parser.add_argument("--start", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.file:
        print(json.dumps(to_first_batch(given.file, given.start)))
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "proteins.fasta"
        write(path, 21_000 if given.quick else given.count)
        for way in ("first split", "kept split"):
            words = [sys.executable, __file__, "--file", str(path), "--start", str(time.time())]
            found[way] = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)
            figures = found[way]
            seconds = f"{figures['seconds']:.1f} s, {figures['cpu_seconds']:.1f} of CPU"
            print(f"{way}: {seconds}, peak {figures['peak_gb']:.2f} GB", flush=True)
    if given.out:
        given.out.write_text(json.dumps({"load": round(os.getloadavg()[0], 1), **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
