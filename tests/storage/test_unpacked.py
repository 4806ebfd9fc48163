"""Small files that unpack to large ones are refused before they fill the memory, whatever reads them."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from didi_core.checkpoints.card import load_denoiser, save_model, write_card
from didi_core.checkpoints.importers import import_checkpoint
from didi_core.checkpoints.judge import load_causal, load_judge, save_judge
from didi_core.errors import InputError
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.judge import Judge, JudgeConfig
from didi_core.storage import unpacked
from didi_core.storage.sample_files import read_file
from didi_core.storage.unpacked import read_arrays
from didi_core.types import Vocabulary
from didi_language.sources import Source
from didi_protein.structure_file import StructureFile

WORDS = Vocabulary(5)
TINY = DiTConfig(hidden=8, layers=1, heads=2, conditioning=8)
ATOM = b"ATOM      1  CA  GLY A   1       1.000   0.000   0.000  1.00 50.00           C  \n"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacked, "SMALL", 1 << 16)


@pytest.mark.parametrize(
    ("name", "unit", "read"),
    [
        ("x.fasta", b">a\nMKV\n", read_file),
        ("x.fa", b"MKV" * 40, read_file),
        ("x.jsonl", b'{"text": "MKV"}\n', read_file),
        ("x.json", b'[{"text": "MKV"},', read_file),
        ("x.csv", b"text,n\n", read_file),
        ("x", b"MKV\n", read_file),
        ("x.txt", b"word ", lambda path: list(Source((str(path),)).read())),
        ("x.md", b"word\n\n\n\n", lambda path: list(Source((str(path),)).read())),
        ("x.pdb", ATOM, StructureFile),
        ("x.cif", b"data_x\n", StructureFile),
    ],
)
def test_gzip(tmp_path: Path, name: str, unit: bytes, read: Callable[[Path], object]) -> None:
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(b">a\n" * (name == "x.fa") + unit * (1 << 18)))
    with pytest.raises(InputError, match="unpacks to more than"):
        read(path)


@pytest.mark.parametrize("name", ["x.fasta", "x.jsonl", "x.csv", "x", "x.pdb"])
def test_zeros_are_no_text(tmp_path: Path, name: str) -> None:
    (path := tmp_path / f"{name}.gz").write_bytes(gzip.compress(bytes(1 << 15)))
    with pytest.raises(InputError, match="binary data"):
        StructureFile(path) if name == "x.pdb" else read_file(path)


def test_what_the_user_allows_is_read(tmp_path: Path) -> None:
    (path := tmp_path / "x.fasta.gz").write_bytes(gzip.compress(b">a\n" + b"MKV\n" * (1 << 16)))
    with pytest.raises(InputError, match="data.unpacked_limit=<bytes> allows more"):
        read_file(path)
    assert len(read_file(path, unpacked=1 << 19).samples[0].text) == 3 << 16


def parquet(path: Path, texts: Sequence[str], dictionary: bool = True) -> Path:
    pyarrow.parquet.write_table(
        pyarrow.table({"text": texts, "n": range(len(texts))}), path, compression="zstd", use_dictionary=dictionary
    )
    return path


def test_parquet_is_read_a_row_at_a_time(tmp_path: Path) -> None:
    texts = [f"text {i // 3}" for i in range(3000)]
    for dictionary in (True, False):
        path = parquet(tmp_path / "x.parquet", texts, dictionary)
        assert list(Source((str(path),)).read()) == texts


@pytest.mark.parametrize(
    ("texts", "dictionary"), [(["MKV" * 100_000] * 10, False), (["MKV" * 3000] * 1000, True), (["M" * 10**6], False)]
)
def test_parquet_that_is_small_unpacks_to_little(texts: list[str], dictionary: bool, tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", texts, dictionary)
    assert 100 * path.stat().st_size < sum(map(len, texts))
    with pytest.raises(InputError, match=r"x\.parquet: it unpacks to more than .* data.unpacked_limit=<bytes>"):
        list(Source((str(path),)).read())
    assert list(Source((str(path),), unpacked_limit=1 << 24).read()) == texts


@pytest.mark.parametrize(
    ("column", "said"),
    [("n", "data.column=n of data.path=.* holds int64, not text"), ("tex", "Did you mean 'text'"), ("l", "list<")],
)
def test_parquet_without_a_column_of_texts(column: str, said: str, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "n": [1], "l": [["b"]]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=said):
        list(Source((str(tmp_path / "x.parquet"),), column=column).read())


def test_parquet_that_is_cut_or_changes(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", [str(i) for i in range(5000)])
    rows = Source((str(path),)).read()
    next(rows)
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match="changed while it was read"):
        list(rows)
    whole = parquet(path, [str(i) for i in range(5000)]).read_bytes()
    for damaged in (whole[:-50], whole[:40], whole[:100] + bytes(4000) + whole[4100:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"data\.path=.*x\.parquet cannot be read"):
            list(Source((str(path),)).read())


def test_archives(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", pae=np.zeros((1000, 1000)))
    torch.save({"state_dict": {"a": torch.zeros(1 << 20)}}, tmp_path / "stored.ckpt")
    with zipfile.ZipFile(tmp_path / "stored.ckpt") as stored, zipfile.ZipFile(
        tmp_path / "x.ckpt", "w", zipfile.ZIP_DEFLATED
    ) as packed:
        for member in stored.namelist():
            packed.writestr(member, stored.read(member))
    with pytest.raises(InputError, match="x.npz: its .* bytes unpack to 8,000,"):
        read_arrays(tmp_path / "x.npz")
    with pytest.raises(InputError, match="x.ckpt: its .* bytes unpack to 4,19"):
        import_checkpoint(str(tmp_path / "x.ckpt"), WORDS)


@pytest.mark.parametrize("where", ["state_dict", "ema"])
def test_one_number_is_not_a_billion(tmp_path: Path, where: str) -> None:
    wide = torch.zeros(1).expand(1 << 15, 1 << 15)
    state = {"backbone.vocab_embed.embedding": wide if where == "state_dict" else torch.zeros(2, 2)}
    torch.save({"state_dict": state, "ema": {"shadow_params": [wide]}}, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match="bytes hold tensors of 4,294,967,"):
        import_checkpoint(str(tmp_path / "x.ckpt"), WORDS)


@pytest.mark.parametrize("key", ["hidden", "layers", "conditioning", "mlp_ratio", "positions", "noise"])
def test_sizes_of_a_card_that_its_weights_do_not_have(tmp_path: Path, key: str) -> None:
    save_model(tmp_path, DiT(TINY, WORDS))
    card = json.loads((tmp_path / "card.json").read_text())
    card["config"][key] = 10**7
    write_card(tmp_path, card)
    with pytest.raises(InputError, match="card.json (describes a network of 10,000,000|does not fit)"):
        load_denoiser(tmp_path)


@pytest.mark.parametrize("key", ["hidden", "layers", "context"])
def test_sizes_of_a_judge_that_its_weights_do_not_have(tmp_path: Path, key: str) -> None:
    save_judge(tmp_path / "own", Judge(JudgeConfig(8, 1, 2, 16), WORDS))
    Judge(JudgeConfig(8, 1, 2, 16), WORDS).network.save_pretrained(tmp_path / "hub")
    for folder, theirs, read in (
        ("own/card.json", key, lambda: load_judge(tmp_path / "own")),
        ("hub/config.json", {"hidden": "n_embd", "layers": "n_layer", "context": "n_positions"}[key],
         lambda: load_causal(str(tmp_path / "hub"), "data.judge")),
    ):  # fmt: skip
        held = json.loads((tmp_path / folder).read_text())
        held.get("config", held)[theirs] = 10**6
        (tmp_path / folder).write_text(json.dumps(held))
        with pytest.raises(InputError):
            read()


def test_a_hub_folder_without_all_weights_is_refused(tmp_path: Path) -> None:
    Judge(JudgeConfig(8, 1, 2, 16), WORDS).network.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "n_layer": 2}))
    with pytest.raises(InputError, match=r"lacks the weights of transformer.h.1"):
        load_causal(str(tmp_path), "data.judge")
