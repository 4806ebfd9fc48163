"""Readers of networks, their cards and training checkpoints."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from large_files import KINDS, folder
from large_files import VOCABULARY as LARGE
from safetensors.torch import save_file

from didi_core.checkpoints.card import load_denoiser, load_scorer, save_model, save_scorer, write_card
from didi_core.checkpoints.exporters import export_hf
from didi_core.checkpoints.importers import import_checkpoint, outline_of
from didi_core.checkpoints.judge import load_judge, save_judge
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.esm import Esm, EsmConfig
from didi_core.models.judge import Judge, JudgeConfig
from didi_core.models.scorer import scorer_from_trunk
from didi_core.report.record import read_training
from didi_core.storage.files import sha256
from didi_core.storage.fingerprint import json_hash
from didi_core.training.state import FolderKeeper
from didi_protein.vocabulary import VOCABULARY as PROTEIN
from didi_toy.domain import ToyDomain
from fuzzing.case import Case
from fuzzing.mutations import as_archive, as_bytes, as_json, as_safetensors

TOY = ToyDomain().vocabulary
TINY = DiTConfig(hidden=8, layers=1, heads=2, conditioning=8)

# --- networks


def large(folder: Path) -> None:
    """A large teacher, from its weights and from its configuration alone."""
    outline_of(str(folder), LARGE)
    import_checkpoint(str(folder), LARGE)


def own(folder: Path) -> None:
    torch.manual_seed(0)
    denoiser = DiT(TINY, TOY)
    save_model(folder, denoiser, {"domain": "toy", "data": {}, "lengths": {"16": 3}, "training": {"steps": 2}})
    save_scorer(folder, scorer_from_trunk(denoiser, normed=True))


def mend_card(folder: Path) -> None:
    """The hashes of the weights as they are now."""
    card = json.loads((folder / "card.json").read_text())
    card["sha256"] = {name: sha256(folder / name) for name in card["sha256"]}
    write_card(folder, card)


def sealed(folder: Path) -> None:
    """With a hash of the card as it is now, so that its entries are read."""
    with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
        write_card(folder, json.loads((folder / "card.json").read_text()))


def both(folder: Path) -> None:
    load_denoiser(folder)
    load_scorer(folder)


def judge(folder: Path) -> None:
    save_judge(folder, Judge(JudgeConfig(8, 1, 2, 16), PROTEIN))


def peer(prefix: str = "backbone.", **more: Any) -> Callable[[Path], None]:
    """A file in MDLM's layout, as Lightning writes it."""

    def make(folder: Path) -> None:
        network = DiT(TINY, TOY)
        state = {f"{prefix}{name}": value.clone() for name, value in network.state_dict().items()}
        shadow = [value.detach().clone() for _, value in network.named_parameters()]
        settings = {"config": {"parameterization": "subs", "model": {"n_heads": 2}}}
        held = {"state_dict": state, "epoch": 1, "hyper_parameters": settings, "ema": {"shadow_params": shadow}}
        torch.save(held, folder / "x.ckpt", **more)

    return make


def peer_folder(folder: Path) -> None:
    save_file(DiT(TINY, TOY).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "mdlm", "n_heads": 2, "time_conditioning": False}))


def in_parts(folder: Path) -> None:
    state = DiT(TINY, TOY).state_dict()
    names = list(state)
    save_file({name: state[name] for name in names[:3]}, folder / "a.safetensors")
    save_file({name: state[name] for name in names[3:]}, folder / "b.safetensors")
    index = {name: "a.safetensors" if name in names[:3] else "b.safetensors" for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "config.json").write_text(json.dumps({"n_heads": 2}))


def exported(folder: Path) -> None:
    own(folder / "run")
    export_hf(folder / "run", folder / "out")


def esm(folder: Path) -> None:
    network = Esm(EsmConfig(hidden=8, layers=1, heads=2, intermediate=16), PROTEIN)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    config = {"model_type": "esm", "position_embedding_type": "rotary", "hidden_size": 8, "num_hidden_layers": 1,
              "num_attention_heads": 2, "intermediate_size": 16, "mask_token_id": 32}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def imported(name: str = "", vocabulary: Any = TOY) -> Callable[[Path], object]:
    return lambda folder: import_checkpoint(str(folder / name), vocabulary)


def trained(folder: Path) -> None:
    keeper = FolderKeeper(folder, run="one")
    keeper.record(1, {"loss": 1.0})
    keeper.save(1, {"network": torch.nn.Linear(2, 2, bias=False), "optimiser": _optimiser()})
    keeper.record(2, {"loss": 0.5})


def _optimiser() -> torch.optim.Optimizer:
    network = torch.nn.Linear(2, 2, bias=False)
    made = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    made.step()
    return made


def resumed(folder: Path) -> None:
    FolderKeeper(folder, run="one").restore({"network": torch.nn.Linear(2, 2, bias=False), "optimiser": _optimiser()})


STEP = "checkpoints/step_0000001"


def mend_manifest(folder: Path) -> None:
    """The hashes of a checkpoint's files as they are now."""
    place = folder / STEP
    manifest = json.loads((place / "manifest.json").read_text())
    manifest.pop("sha256")
    manifest["files"] = {name: sha256(place / name) for name in manifest["files"]}
    (place / "manifest.json").write_text(json.dumps(manifest))


def hashed(folder: Path) -> None:
    """With a hash of the manifest as it is now, so that its other entries are read."""
    with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
        manifest = json.loads((folder / STEP / "manifest.json").read_text())
        manifest.pop("sha256", None)
        (folder / STEP / "manifest.json").write_text(json.dumps({**manifest, "sha256": json_hash(manifest)}))


NETWORKS = {
    "card.json": Case("card.json", own, both, as_json, sealed),
    "our safetensors": Case("model.safetensors", own, both, as_safetensors, mend_card),
    "a scorer's safetensors": Case("scorer.safetensors", own, both, as_safetensors, mend_card),
    "card.json, imported": Case("card.json", own, imported(), as_json, sealed),
    "a judge's card.json": Case("card.json", judge, load_judge, as_json, sealed),
    "a judge's safetensors": Case("model.safetensors", judge, load_judge, as_safetensors, mend_card),
    "a .ckpt": Case("x.ckpt", peer(), imported("x.ckpt"), as_archive),
    "an old .ckpt": Case("x.ckpt", peer(_use_new_zipfile_serialization=False), imported("x.ckpt"), as_bytes),
    "a DiDi-Instruct .ckpt": Case("x.ckpt", peer("student_ema."), imported("x.ckpt"), as_archive),
    "a peer's safetensors": Case("model.safetensors", peer_folder, imported(), as_safetensors),
    "a peer's config.json": Case("config.json", peer_folder, imported(), as_json),
    "index.json": Case("model.safetensors.index.json", in_parts, imported(), as_json),
    "an export's config.json": Case("out/config.json", exported, imported("out"), as_json),
    "an export's safetensors": Case("out/model.safetensors", exported, imported("out"), as_safetensors),
    **{f"{kind}'s config.json": Case("config.json", partial(folder, kind=kind), large, as_json) for kind in KINDS},
    "LLaDA's weights": Case("model.safetensors", partial(folder, kind="llada"), large, as_safetensors),
    "ESM's config.json": Case("config.json", esm, imported(vocabulary=PROTEIN), as_json),
    "ESM's bin": Case("pytorch_model.bin", esm, imported(vocabulary=PROTEIN), as_archive),
    "manifest.json": Case(f"{STEP}/manifest.json", trained, resumed, as_json),
    "manifest.json, hashed again": Case(f"{STEP}/manifest.json", trained, resumed, as_json, hashed),
    "a checkpoint's weights": Case(f"{STEP}/network.safetensors", trained, resumed, as_safetensors, mend_manifest),
    "a checkpoint's optimiser": Case(f"{STEP}/optimiser.pt", trained, resumed, as_archive, mend_manifest),
    "metrics.jsonl, resumed": Case("metrics.jsonl", trained, resumed, as_json),
    "metrics.jsonl": Case("metrics.jsonl", trained, read_training, as_json),
}  # fmt: skip
