"""Networks on disk: ``model.safetensors`` (and ``scorer.safetensors``) beside ``card.json``, which describes them.

The card holds architecture, config, vocabulary, the SHA-256 of every weight file and one of its own; all are checked on
loading. Nothing is pickled. A folder of ``export`` is read like one with a card, and so is one on the Hugging Face hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from didi_core.checkpoints import exported
from didi_core.checkpoints.hub import fetch, is_hub_id
from didi_core.checkpoints.weights import check_sizes, read_weights, write_weights
from didi_core.config import build
from didi_core.errors import InputError, unknown, warn
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.esm import Esm, EsmConfig
from didi_core.models.llama import Llama, LlamaConfig
from didi_core.models.scorer import TokenScorer, scorer_from_trunk
from didi_core.storage.files import read_json, write_json
from didi_core.storage.fingerprint import json_hash
from didi_core.storage.shape import Each, Maybe, misfit
from didi_core.streams import seeded
from didi_core.types import Denoiser, Vocabulary

MODEL, SCORER, CARD = "model.safetensors", "scorer.safetensors", "card.json"
LARGEST_VOCABULARY = 10_000_000
Network = TypeVar("Network", bound=nn.Module)
FOLDERS = ("student", "model")  # folders of networks in a run directory


@dataclass(frozen=True)
class Architecture:
    """A kind of network that can be saved: ``network(settings(**config), vocabulary)`` builds it.

    network: a class whose instances have ``config`` (of class ``settings``, with a field ``attention``) and
        ``vocabulary``, and which can be a scorer's trunk (``didi_core.models.scorer.ScorerTrunk``).
    in_place: its weights are those of the file, in their type; others are copied into a network in fp32. All of the
        network's tensors must be in its state dict.
    """

    network: Callable[..., Denoiser]
    settings: type
    in_place: bool = False

    def build(self, config: Mapping[str, Any], vocabulary: Vocabulary) -> Denoiser:
        """A network with arbitrary weights."""
        return self.network(build(self.settings, config, "config"), vocabulary)


ARCHITECTURES: dict[str, Architecture] = {
    "dit": Architecture(DiT, DiTConfig),
    "esm": Architecture(Esm, EsmConfig),
    "llama": Architecture(Llama, LlamaConfig, in_place=True),
}
NOT_IN_CARD = ("attention",)  # chosen on the machine where the network runs
CHOICES = Maybe(Each((str, dict)))
SHAPE = {
    "architecture": str, "config": dict, "vocabulary": dict, "sha256": Each(str, dict), "domain": Maybe(str),
    "data": Maybe(dict), "lengths": Maybe(Each(int, dict)), "scorer": Maybe(dict), "training": Maybe(dict),
    "compared": Maybe({"laws": CHOICES, "grids": CHOICES, "power": Maybe((int, float))}),
}  # fmt: skip
# Entries of a card that describe its files; the others describe the model, and are copied with it.
SEAL = "card_sha256"
OF_THE_FILES = ("kind", "architecture", "config", "vocabulary", "sha256", "scorer", SEAL)
# Entries on which results depend, and of which the seal is a hash; others may be added freely.
SEALED = (*OF_THE_FILES[:-1], "domain", "data", "lengths", "training", "compared")


def architecture_of(model: nn.Module) -> str | None:
    """Name of a network's architecture; None for a network that cannot be saved."""
    return next((name for name, kind in ARCHITECTURES.items() if type(model) is kind.network), None)


def amend_card(folder: Path, **entries: Any) -> None:
    """Add entries to the card of a folder."""
    write_card(folder, {**read_json(folder / CARD), **entries})


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write a card with its own hash."""
    write_json(folder / CARD, {**card, SEAL: _seal(card)})


def _seal(card: Mapping[str, Any]) -> str:
    """SHA-256 of what a card says of the network and how to sample it."""
    return json_hash(json.loads(json.dumps({key: card[key] for key in SEALED if key in card})))


def check_seal(path: Path, card: Mapping[str, Any]) -> None:
    """Raise InputError for a card that has changed since it was written; for an older one without a hash, say so."""
    if SEAL not in card:
        _say_older(path)
    elif card[SEAL] != _seal(card):
        raise InputError(
            f"{path} has changed since it was written: what it says of the network does not match its {SEAL}. Get the "
            f"folder again; after a change of your own, remove the entry {SEAL}."
        )


@cache
def _say_older(path: Path) -> None:
    warn(f"{path} is of an older version, without a hash of its own: whether it has changed is not checked.")


def save_model(folder: Path, model: Denoiser, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write a denoiser's weights and its card. Returns the card.

    Args:
        about: further entries of the card: domain, schedule, training summary, licence ...

    Raises:
        InputError: the network is of no architecture that has files.
    """
    name = architecture_of(model)
    if name is None:
        raise InputError(f"a {type(model).__name__} cannot be saved as a model: only trained networks have files.")
    digest = write_weights(folder / MODEL, model)
    card = {
        "kind": "denoiser",
        "architecture": name,
        "config": {key: value for key, value in asdict(model.config).items() if key not in NOT_IN_CARD},  # type: ignore[call-overload]
        "vocabulary": asdict(model.vocabulary),
        "sha256": {MODEL: digest},
        **(about or {}),
    }
    write_card(folder, card)
    return card


def save_scorer(folder: Path, scorer: TokenScorer) -> None:
    """Write a scorer beside its denoiser, and its hash into their card."""
    card = read_card(folder)
    digest = write_weights(folder / SCORER, scorer)
    card["scorer"] = {"normed": scorer.normed}
    card["sha256"] = {**card["sha256"], SCORER: digest}
    write_card(folder, card)


def load_denoiser(path: Path | str) -> Denoiser:
    """The denoiser in a folder with card.json, in a run directory (its ``student`` or ``model``), or on the hub.

    It is on the CPU and in eval mode.

    Raises:
        InputError: a file is missing, damaged or of another kind; the message has its path.
    """
    folder = model_folder(Path(path))
    card = read_card(folder)
    if card.get("kind") != "denoiser":
        raise InputError(
            f"{folder} holds a {card.get('kind', 'model of unknown kind')}, not a denoiser. Give a run of distill, or "
            "of pretrain objective=nelbo."
        )
    return _loaded(folder, card, MODEL, partial(_build, folder, card)).eval()


def load_scorer(path: Path | str) -> TokenScorer | None:
    """The scorer that was saved with a denoiser, in eval mode; None if there is none."""
    folder = model_folder(Path(path))
    card = read_card(folder)
    if SCORER not in card["sha256"]:
        return None
    normed = bool((card.get("scorer") or {}).get("normed", True))  # older cards lack it

    def scorer() -> TokenScorer:
        with seeded(0, "weights that the file replaces"):  # loading leaves the global random state unchanged
            return scorer_from_trunk(_build(folder, card), normed=normed)

    return _loaded(folder, card, SCORER, scorer).eval().requires_grad_(False)


def has_card(path: Path) -> bool:
    """Whether a path is a run directory or a model folder."""
    return any(_is_model(folder) for folder in _places(path))


def model_folder(path: Path) -> Path:
    """The folder that holds a model: the given one, the run directory's ``student`` or ``model``, or one of the hub.

    Raises:
        InputError: there is none. A name such as ``owner/name`` that is not here is fetched from the hub.
    """
    for folder in _places(path):
        if _is_model(folder):
            return folder
    if not path.exists() and is_hub_id(str(path)):
        return _of_hub(str(path))
    if not path.exists():
        raise InputError(f"{path} does not exist. Give a run directory, or a folder with {CARD} and {MODEL}.")
    hint = ""
    if (path / "run.json").is_file():
        hint = " Its run has not finished: repeat the command that made it."
    elif (path / "config.json").is_file():
        hint = f" It is another program's: didi import source={path} domain=... run_dir=... makes one of it, if it can."
    raise InputError(f"{path} holds no model: there is no {CARD} in it or in its {' or '.join(FOLDERS)}.{hint}")


def _places(path: Path) -> tuple[Path, ...]:
    return (path, *(path / name for name in FOLDERS))


def _is_model(folder: Path) -> bool:
    return (folder / CARD).is_file() or exported.is_export(folder)


def _of_hub(name: str) -> Path:
    """The folder of a model on the hub. Raises InputError for one of another program."""
    folder = fetch(name, "run")
    if not _is_model(folder):
        raise InputError(
            f"run={name}: that model on the hub was not written by `didi push`. Import it first: didi import "
            f"source={name} domain=<name> run_dir=<folder>."
        )
    return folder


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a folder. Raises InputError where there is none, or it is damaged or has changed."""
    path = folder / CARD if (folder / CARD).is_file() else folder / exported.CONFIG
    card = read_json(path) if path.name == CARD else exported.card_of(folder)
    missing = [key for key in ("architecture", "config", "vocabulary", "sha256") if key not in card]
    if missing:
        raise InputError(f"{path} is not a model card: it lacks {', '.join(missing)}. Get the folder again.")
    if wrong := misfit(card, SHAPE):
        raise InputError(f"{path} is not a model card: {wrong}. Get the folder again.")
    strange = [length for length in card.get("lengths") or () if not re.fullmatch("[0-9]{1,9}", length)]
    if strange:
        raise InputError(f"{path} is not a model card: {strange[0][:40]!r} is no length. Get the folder again.")
    if path.name == CARD:  # that of an export is made of its files, and has no seal
        check_seal(path, card)
    return card


def domain_name(card: Mapping[str, Any], where: str) -> str:
    """The domain whose sequences a model writes. Raises InputError for a card that does not name it."""
    name = card.get("domain")
    if not isinstance(name, str):
        raise InputError(f"{where} names no domain in its card, so its tokens are unknown. Import it again.")
    return name


def read_vocabulary(written: Mapping[str, Any]) -> Vocabulary:
    """A vocabulary from its JSON form."""
    size = written.get("size")
    if type(size) is not int or not 0 < size <= LARGEST_VOCABULARY:
        raise ValueError(f"a vocabulary of {size!r} tokens")
    known = {field.name for field in fields(Vocabulary)}
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in written.items() if k in known}
    return Vocabulary(**given)


def _build(folder: Path, card: Mapping[str, Any]) -> Denoiser:
    if card["architecture"] not in ARCHITECTURES:
        raise unknown("architecture", card["architecture"], ARCHITECTURES, str(folder / CARD))
    try:
        with torch.random.fork_rng(devices=[]):  # the weights will be overwritten: keep the caller's random state
            kind = ARCHITECTURES[card["architecture"]]
            return kind.build(card["config"], read_vocabulary(card["vocabulary"]))
    except (TypeError, ValueError, RuntimeError, ArithmeticError, InputError) as error:
        reason = str(error).rstrip(".")
        raise InputError(
            f"{folder / CARD} describes a model that cannot be built: {reason}. "
            "Get the folder again."
        ) from None


def _loaded(folder: Path, card: Mapping[str, Any], file: str, make: Callable[[], Network]) -> Network:
    """A network with the weights of a file. Strictly: names, shapes and the recorded hash must agree."""
    digest = card["sha256"].get(file)
    if (folder / CARD).is_file():
        tensors, described = read_weights(folder / file, digest), folder / CARD
    else:
        prefix = exported.DENOISER if file == MODEL else exported.GUIDE
        tensors, described = exported.tensors_of(folder, prefix, digest), folder / exported.CONFIG
    layers = card["config"].get("layers", 0)
    check_sizes(make, layers if isinstance(layers, int) else 0, tensors, str(described))
    in_place = ARCHITECTURES[card["architecture"]].in_place and file == MODEL
    with torch.device("meta") if in_place else nullcontext():
        made = make()
    made.load_state_dict(tensors, assign=in_place)
    return made
