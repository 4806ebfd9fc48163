"""Sources of checkpoints: a file or a folder, each read into one plain record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from didi_core.checkpoints.hub import PICKLED
from didi_core.checkpoints.importers.pickled import check_extent, load_pickled, plain
from didi_core.errors import InputError
from didi_core.storage.files import read_json

DISCRIMINATOR = "discriminator.safetensors"
# Parts of names that wrappers put in, wherever in a name: data parallel, torch.compile, FSDP, activation checkpoints.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "ddp")
STATE = ("state_dict", "model_state_dict", "model", "module", "network", "net", "weights")  # usual keys of a state dict
AVERAGE = re.compile(r"(^|_)ema(_|$)|averag", re.IGNORECASE)  # keys of an exponential moving average of the weights
BESIDE = re.compile(r"optim|sched|scaler|callback|loops|hyper_?param|config|teacher|rng", re.IGNORECASE)
DEEPEST = 3  # keys between the top of a file and its tensors
OTHER_FRAMEWORKS = {
    b"GGUF": "a GGUF file (llama.cpp)",
    b"\x89HDF": "an HDF5 file (Keras, TensorFlow)",
    b"version https://git-lfs": "a Git LFS pointer, not the file it points to: fetch it with git lfs pull",
    b"<!DOCTYPE": "a web page, not a checkpoint: the download went wrong",
    b"<html": "a web page, not a checkpoint: the download went wrong",
}
OTHER_SUFFIXES = {
    ".msgpack": "a Flax file",
    ".h5": "an HDF5 file (Keras, TensorFlow)",
    ".gguf": "a GGUF file (llama.cpp)",
    ".onnx": "an ONNX file",
    ".tflite": "a TensorFlow file",
    ".npz": "a NumPy archive",
    ".fasta": "a FASTA file",
    ".json": "a JSON file",
}


@dataclass(frozen=True)
class Held:
    """The content of a checkpoint, before its layout is recognised.

    tensors: the state dict, names without wrappers' parts. discriminator: tensors of discriminator.safetensors.
    shadow: EMA weights without names, in the order of the trainable parameters; None where there are none.
    average: EMA weights with names; None where there are none, or no others.
    config: the configuration that came with it, plain. other: names of further entries (optimiser state and so on).
    """

    source: str
    path: Path
    tensors: Mapping[str, Tensor]
    discriminator: Mapping[str, Tensor] | None = None
    shadow: tuple[Tensor, ...] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    other: tuple[str, ...] = ()
    average: Mapping[str, Tensor] | None = None

    def setting(self, *names: str) -> Any:
        """A value of the configuration by its path; None if it is absent."""
        node: Any = self.config
        for name in names:
            node = node.get(name) if isinstance(node, Mapping) else None
        return node


def read(path: Path, source: str) -> Held:
    """The content of a file or folder.

    Raises:
        InputError: another framework's file, a damaged one, or a folder without weights.
    """
    return _read_folder(path, source) if path.is_dir() else _read_file(path, source)


def _read_file(path: Path, source: str) -> Held:
    with path.open("rb") as file:
        start = file.read(32)
    for magic, what in OTHER_FRAMEWORKS.items():
        if start.startswith(magic):
            raise InputError(f"{path} is {what}. Give a PyTorch or safetensors checkpoint.")
    if path.suffix == ".safetensors":
        return Held(source, path, _safetensors(path), config=_config_beside(path.parent))
    if path.suffix in PICKLED:
        return _from_pickled(path, source)
    what = OTHER_SUFFIXES.get(path.suffix, f"a file of unknown kind ({path.suffix or 'no suffix'})")
    raise InputError(f"{path} is {what}. Known: {', '.join((*PICKLED, '.safetensors'))}, or a folder with one.")


def _from_pickled(path: Path, source: str) -> Held:
    held = load_pickled(path)
    found = _state_dicts(held)
    averages = {key: state for key, state in found.items() if any(map(AVERAGE.search, key))}
    states = {key: state for key, state in found.items() if key not in averages}
    key, state = _the_one(path, states) if states else _the_one(path, averages) if averages else ((), held)
    named = {k: s for k, s in averages.items() if k != key}
    average = _only_tensors(path, _the_one(path, named)[1]) if named else None
    config = plain(held.get("hyper_parameters", {})) if key else _config_beside(path.parent)
    if isinstance(config, Mapping) and isinstance(config.get("config"), Mapping):
        config = config["config"]
    used = {"hyper_parameters", *(name for names in (key, *named) for name in names[:1])}
    other = tuple(sorted(set(map(str, held)) - used - {"ema"})) if key else ()
    shadow = None if named or key[:1] == ("ema",) else _shadow(path, held.get("ema"))
    return Held(source, path, _only_tensors(path, state), None, shadow, config, other, average)


def _state_dicts(held: Mapping[Any, Any], depth: int = DEEPEST) -> dict[tuple[str, ...], Mapping[Any, Any]]:
    """The mappings of tensors below the keys of a file, by those keys; none at the top itself."""
    found: dict[tuple[str, ...], Mapping[Any, Any]] = {}
    for key, value in held.items():
        if not isinstance(value, Mapping) or not value or BESIDE.search(str(key)):
            continue
        if all(isinstance(item, Tensor) for item in value.values()):
            found[str(key),] = value
        elif depth > 1:
            found |= {(str(key), *more): state for more, state in _state_dicts(value, depth - 1).items()}
    return found


def _the_one(
    path: Path, states: Mapping[tuple[str, ...], Mapping[Any, Any]]
) -> tuple[tuple[str, ...], Mapping[Any, Any]]:
    """The state dict of several: the only one, or the first under a usual key. Raises InputError otherwise."""
    usual: list[tuple[str, ...]] = [(key,) for key in STATE if (key,) in states]
    usual = usual or [key for key in states if key[-1] in STATE]
    if len(states) > 1 and not usual:
        names = ", ".join(".".join(key) for key in states)
        raise InputError(f"{path} holds several networks ({names}), and which is meant is not clear. Save one of them.")
    chosen = usual[0] if usual else next(iter(states))
    return chosen, states[chosen]


def _shadow(path: Path, ema: Any) -> tuple[Tensor, ...] | None:
    """Weights of an exponential moving average as MDLM's class writes them."""
    if ema is None:
        return None
    shadow = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not isinstance(shadow, list | tuple) or not all(isinstance(item, Tensor) for item in shadow):
        raise InputError(f"{path}: its entry 'ema' has no list of tensors 'shadow_params', so it cannot be read.")
    check_extent({str(number): item for number, item in enumerate(shadow)}, path)
    return tuple(shadow)


def _read_folder(path: Path, source: str) -> Held:
    config = _config_beside(path)
    index = path / "model.safetensors.index.json"
    discriminator = _safetensors(path / DISCRIMINATOR) if (path / DISCRIMINATOR).is_file() else None
    if index.is_file():
        parts = _indexed(index)
        tensors = {name: value for part in parts for name, value in _safetensors(path / part).items()}
        return Held(source, path, tensors, discriminator, config=config)
    if (path / "model.safetensors").is_file():
        return Held(source, path, _safetensors(path / "model.safetensors"), discriminator, config=config)
    index = path / "pytorch_model.bin.index.json"
    if index.is_file():  # as transformers 4 split large models
        parts = _indexed(index)
        absent = [part for part in parts if not (path / part).is_file()]
        if absent:
            raise InputError(f"{path / absent[0]} is missing. Get the folder again.")
        tensors = {n: v for part in parts for n, v in _only_tensors(path / part, load_pickled(path / part)).items()}
        return Held(source, path, tensors, discriminator, config=config)
    pickled = sorted(p for p in path.iterdir() if p.suffix in PICKLED)
    named = [p for p in pickled if p.name == "pytorch_model.bin"] or pickled
    if len(named) == 1:
        held = _from_pickled(named[0], source)
        return replace(held, path=path, discriminator=discriminator, config=held.config or config)
    found = ", ".join(p.name for p in sorted(path.iterdir())[:6]) or "nothing"
    raise InputError(
        f"{path} holds no single checkpoint (model.safetensors, pytorch_model.bin or one .ckpt); it holds {found}. "
        "Name the file."
    )


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing. Get the folder again.") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged: {str(error).rstrip('.')}.") from None
    return without_wrappers(path, tensors)


def _only_tensors(path: Path, held: Mapping[str, Any]) -> dict[str, Tensor]:
    strange = [str(name) for name, value in held.items() if not isinstance(value, Tensor)]
    if strange or not held:
        what = f"entries that are not tensors ({', '.join(strange[:5])})" if held else "nothing"
        raise InputError(f"{path} holds {what} instead of a state dict: it is not a checkpoint of a known layout.")
    tensors = {str(name): value for name, value in held.items()}
    check_extent(tensors, path)
    return without_wrappers(path, tensors)


def without_wrappers(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by their names in the network, without the parts of names that wrappers add, in any order and number.

    Raises:
        InputError: two tensors have one name.
    """
    made: dict[str, Tensor] = {}
    for name, value in tensors.items():
        bare = ".".join(part for part in name.split(".") if part not in WRAPPERS)
        if bare in made:
            raise InputError(f"{path} holds two tensors {bare}, one of them wrapped: give the file of one network.")
        made[bare] = value
    return made


def _indexed(index: Path) -> list[str]:
    """The files of an index, which together hold the weights."""
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise InputError(f"{index} is damaged: its weight_map names no files. Get the folder again.")
    outside = [name for name in named.values() if Path(name).name != name or not name]
    if outside:
        raise InputError(f"{index} names {outside[0]!r}, which is not in its folder. Get the folder again.")
    return sorted(set(named.values()))


def _config_beside(folder: Path) -> dict[str, Any]:
    return read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
