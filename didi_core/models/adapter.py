"""Low-rank adapters (LoRA, arXiv 2106.09685): student, fake denoiser and scorer as small additions to one frozen trunk.

An adapted network is a network of its own whose frozen parameters *are* those of the teacher, so that it costs little
more memory than its adapter, its gradients and its optimiser. peft makes the layers. Nothing has to be switched: each
network has its own modules, and only tensors are shared. ``merged`` makes a plain network of it, for export.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from didi_core.errors import InputError, at_least, positive, unknown
from didi_core.models.experts import Mixture
from didi_core.models.noise import ReadsNoise, copied_from
from didi_core.models.scorer import TokenScorer
from didi_core.streams import seeded

LORA = "lora"
NAME = "default"  # peft's name of an adapter
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class AdapterSettings:
    """The keys of ``adapter``.

    rank: of the update that each layer learns. alpha: its scale is alpha / rank; None for alpha = rank.
    targets: names of linear layers of the blocks, such as ``attn_qkv``; None for all of them but those of the experts
        of a mixture, of which there are hundreds and each sees few positions.

    There is no dropout: the log-probabilities of a rollout must be those of the network that drew it.
    """

    kind: str = LORA
    rank: int = 16
    alpha: float | None = None
    targets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.kind != LORA:
            raise unknown("adapter.kind", self.kind, (LORA,))
        at_least(1, "adapter.", rank=self.rank)
        if self.alpha is not None:
            positive("adapter.", alpha=self.alpha)
        if self.targets is not None and not self.targets:
            raise InputError("adapter.targets=[] adapts no layer: leave it out for all linear layers of the blocks.")

    def check_installed(self) -> None:
        """Raise InputError where peft is not installed."""
        if importlib.util.find_spec("peft") is None:
            raise InputError(f'adapter={self.kind} needs peft, which is not installed: pip install "didi-core[lora]".')

    def record(self) -> dict[str, Any]:
        """The keys for a card."""
        return {**asdict(self), "alpha": self.scale * self.rank}

    @property
    def scale(self) -> float:
        """What the product of both factors is multiplied by."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


def adapt(network: Network, teacher: nn.Module, settings: AdapterSettings, seed: int, name: str) -> Network:
    """Turn a network that begins as a copy of the teacher into an adapter on the teacher's own parameters.

    An adapted layer is a linear layer of the blocks that would have learnt. Parameters that the teacher lacks (a
    scorer's head, the map of a student's noise) go on learning in full. At first the network computes what it did.

    Args:
        network: a denoiser, or a scorer on a copy of its trunk; changed in place.
        seed, name: of the random stream of the initial weights.

    Raises:
        InputError: the network has no such layers.
    """
    from peft import LoraConfig, inject_adapter_in_model

    trunk: nn.Module = network.network if isinstance(network, TokenScorer) else network
    layers = _layers(trunk, settings)
    learnt = {id(p) for p in _share(trunk, teacher) if p.requires_grad}
    sizes: dict[str, Any] = {"r": settings.rank, "lora_alpha": settings.scale * settings.rank}
    with seeded(seed, "adapter", name):
        inject_adapter_in_model(LoraConfig(**sizes, target_modules=layers, bias="none"), trunk, adapter_name=NAME)
    for key, parameter in trunk.named_parameters():
        if "lora_" in key:  # peft gives them the type of the layer, in which small updates may round to none
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
        parameter.requires_grad_("lora_" in key or id(parameter) in learnt)
    return network


def _layers(trunk: nn.Module, settings: AdapterSettings) -> list[str]:
    """The full names of the layers to adapt."""
    blocks = (*getattr(trunk, "blocks", ()), *getattr(trunk, "first_blocks", ()))
    inside = {id(part) for block in blocks for part in block.modules()}
    linear = {name: part for name, part in trunk.named_modules() if isinstance(part, nn.Linear) and id(part) in inside}
    if not linear:
        raise InputError(
            f"adapter={settings.kind}: the network, of class {type(trunk).__name__}, has no blocks with linear layers. "
            "Leave adapter out."
        )
    known = sorted({_last(name) for name in linear})
    for target in settings.targets or ():
        if not any(_named(name, target) for name in linear):
            raise InputError(
                f"adapter.targets={target}: no linear layer in the blocks of this {type(trunk).__name__} has that "
                f"name. Known: {', '.join(known)}."
            )
    mixtures = [part for part in trunk.modules() if isinstance(part, Mixture)]
    routed = {id(part) for mixture in mixtures for part in mixture.experts.modules()}
    asked = settings.targets
    wanted = {
        name
        for name, part in linear.items()
        if (id(part) not in routed if asked is None else any(_named(name, target) for target in asked))
    }
    return [name for name in linear if name in wanted and linear[name].weight.requires_grad]


def _last(name: str) -> str:
    """The name of a layer in its block's part: ``attn_qkv``, ``mlp.0``."""
    *_, before, last = name.split(".")
    return f"{before}.{last}" if last.isdigit() else last


def _named(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}") or f".{target}." in name


def _share(trunk: nn.Module, teacher: nn.Module) -> Iterator[nn.Parameter]:
    """Replace every parameter that equals the teacher's of which it is a copy by the teacher's; gives the others."""
    theirs = dict(teacher.named_parameters(remove_duplicate=False))
    for name, parameter in list(trunk.named_parameters(remove_duplicate=False)):
        found = theirs.get(name, theirs.get(copied_from(trunk, name)))
        if found is not None and found.shape == parameter.shape and _equal(found, parameter):
            _put(trunk, name, found)
        else:
            yield parameter


def _put(network: nn.Module, name: str, part: nn.Module | nn.Parameter) -> None:
    """Replace the part of that full name."""
    owner, _, last = name.rpartition(".")
    setattr(network.get_submodule(owner), last, part)


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape are the same; on the meta device, where there are no values, they are."""
    return one is other or (one.is_meta and other.is_meta) or torch.equal(one, other)


def is_adapted(network: nn.Module) -> bool:
    """Whether a network has an adapter."""
    return any("lora_" in name for name, _ in network.named_parameters())


def copied(network: Network) -> Network:
    """A deep copy; that of an adapted network shares the frozen parameters too."""
    kept = [p for p in network.parameters() if not p.requires_grad] if is_adapted(network) else []
    return copy.deepcopy(network, {id(p): p for p in kept})


def merged(network: Network) -> Network:
    """A plain network with the adapter added to copies of the weights; a network without one as it is."""
    if not is_adapted(network):
        return network
    from peft.tuners.tuners_utils import BaseTunerLayer

    made = copy.deepcopy(network)  # the weights below the adapter are the teacher's, and must not change
    if isinstance(made, ReadsNoise) and made.first is not None:  # nor may the first call's change the others'
        for name, shared in list(made.first.named_parameters(remove_duplicate=False)):
            _put(made.first, name, nn.Parameter(shared.detach().clone(), shared.requires_grad))
    for name, layer in list(made.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            _put(made, name, layer.get_base_layer())
    for part in made.modules():
        part.__dict__.pop("peft_config", None)
    return made


@dataclass(frozen=True)
class OwnState:
    """The state of an adapted network without the parameters that it shares: its adapter, what else it learns, buffers.

    A checkpoint holds this much of it (``didi_core.training.state.Stateful``).
    """

    network: nn.Module

    def state_dict(self) -> dict[str, Tensor]:
        shared = {name for name, p in self.network.named_parameters(remove_duplicate=False) if not p.requires_grad}
        return {name: value for name, value in self.network.state_dict().items() if name not in shared}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Inverse of ``state_dict``. Raises InputError for the state of another adapter, or of a network without."""
        differing = sorted({*state} ^ {*self.state_dict()})
        if differing:
            raise InputError(
                f"the checkpoint is of another adapter, or of none: {', '.join(differing[:3])} ... Use another run_dir."
            )
        self.network.load_state_dict(state, strict=False)
