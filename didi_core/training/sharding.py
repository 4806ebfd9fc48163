"""Sharded training: each process holds a part of every network, of its gradients, of AdamW and of the average.

FSDP2 (``torch.distributed.fsdp.fully_shard``) holds the shards. A block is gathered for each of its calls, forward and
backward, and freed after it; what a network has outside its blocks is gathered for a *phase*, which is a batch, a loss
with its backward pass, or a validation. Outside of phases everything is sharded.

FSDP expects that all processes make the same calls in the same order. Here they do not: rollouts end early, rows that
are equal share a call, a head runs once a chunk, and an objective may be a plugin's. So processes *agree* on the next
collective operation before they make it. Each says which one it needs, the smallest number is next, and those who did
not ask take part and forget the result. At the end of a phase a process goes on taking part until all are there. So no
number and no order of calls can make them wait for each other. The price is one message of a few bytes for each block.

Gradients are averaged in the same way, a block at a time during the backward pass: a process that has none gives zeros.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from didi_core.processes import Processes, together
from didi_core.training.optimiser import local
from didi_core.training.outlines import fill, outlined
from didi_core.training.parallel import SHARD, N, blocks_of

# Names of torch 2.13 and of 2.11.
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
DONE = torch.iinfo(torch.int32).max  # what a process says that needs nothing more in this phase


@dataclass(frozen=True)
class Unit:
    """What is gathered together: a block, or what a network has outside its blocks.

    whole, shards: its parameters gathered, which have storage only then, and this process's parts of them.
    """

    module: Any  # an FSDPModule, which torch's types know neither as a module nor as what fully_shard returns
    network: nn.Module
    whole: tuple[nn.Parameter, ...]
    shards: tuple[DTensor, ...]

    @property
    def is_block(self) -> bool:
        return self.module is not self.network

    @property
    def gathered(self) -> bool:
        return not isinstance(next(own_parameters(self.module)), DTensor)

    @property
    def pending(self) -> bool:
        """Whether a backward pass has left gradients that are not averaged yet."""
        return any(parameter.grad is not None for parameter in self.whole)

    def forget(self) -> None:
        """Drop these gradients."""
        for parameter in self.whole:
            parameter.grad = None


def own_parameters(module: Any) -> Iterator[nn.Parameter]:
    """Parameters of a sharded module without those of sharded modules inside it."""
    parts: list[Any] = [part for part in module.modules() if part is not module and isinstance(part, FSDPModule)]
    inside = {id(p) for part in parts for p in part.parameters()}
    return (p for p in module.parameters() if id(p) not in inside)


@dataclass
class Agreement:
    """The order of collective operations, which all processes share: ``2 i`` gathers unit i, ``2 i + 1`` averages it.

    learning: numbers of the units whose gradients are kept in this phase.
    open: whether processes have to agree, as they do within a phase.
    """

    processes: Processes
    mesh: DeviceMesh
    units: list[Unit] = field(default_factory=list)
    learning: frozenset[int] = frozenset()
    open: bool = False

    def ask(self, operation: int) -> None:
        """Take part in what others need until this operation is next."""
        while (chosen := self.processes.least(operation)) != operation:
            if chosen % 2:
                self.average(chosen // 2)
            else:
                self._take_part(self.units[chosen // 2])

    def before_gathering(self, number: int) -> None:
        """Agree on gathering a unit. Gradients of blocks that are complete are averaged first, so that few are held."""
        if self.open:
            self.settle()
            self.ask(2 * number)

    def settle(self) -> None:
        """Average the gradients of all blocks that have some, and drop those of networks that do not learn now."""
        for number, unit in enumerate(self.units):
            if number not in self.learning:
                unit.forget()
            elif unit.is_block and unit.pending:
                self.ask(2 * number + 1)
                self.average(number)

    def finish(self) -> None:
        """Average what is left, and take part in what others need until none needs anything."""
        self.settle()
        for number in sorted(self.learning):
            if self.units[number].pending:
                self.ask(2 * number + 1)
                self.average(number)
        self.ask(DONE)

    def _take_part(self, unit: Unit) -> None:
        """Gather a unit that another process needs."""
        held, self.open = unit.gathered, False
        if held:
            unit.module.reshard()
        unit.module.unshard()
        if not held:
            unit.module.reshard()
        self.open = True

    @torch.no_grad()
    def average(self, number: int) -> None:
        """Add the mean over processes of a unit's gradients to those of its shards, and free them.

        A gradient that is missing counts as zero where another process has one.
        """
        unit, size, group = self.units[number], self.mesh.size(), self.mesh.get_group()
        with together():
            there = torch.tensor([p.grad is not None for p in unit.whole], dtype=torch.int32)
            dist.all_reduce(there, op=dist.ReduceOp.MAX)
        pairs = list(zip(unit.whole, unit.shards, strict=True))
        found = [pair for pair, has in zip(pairs, there.tolist(), strict=True) if has]
        if not found:
            return
        rows = torch.cat([_in_rows(whole, size) for whole, _ in found], dim=1)
        unit.forget()
        mine = rows.new_empty(rows.shape[1])
        with together():
            reduce_scatter(mine, rows.view(-1), group=group)
        widths = [-(-shard.shape[0] // size) * (shard.numel() // shard.shape[0]) for _, shard in found]
        for (_, shard), piece in zip(found, mine.div_(size).split(widths), strict=True):
            if shard.grad is None:
                shard.grad = torch.zeros_like(shard)
            own = local(shard.grad)
            own.add_(piece[: own.numel()].view_as(own))


def _in_rows(parameter: nn.Parameter, size: int) -> Tensor:
    """A parameter's gradient, zeros if it has none: one row for each process, as FSDP cuts it."""
    gradient = parameter.grad
    if gradient is None:
        each = -(-parameter.shape[0] // size) * (parameter.numel() // parameter.shape[0])
        return torch.zeros(size, each, dtype=parameter.dtype, device=parameter.device)
    flat = gradient.reshape(gradient.shape[0], -1)
    return F.pad(flat, (0, 0, 0, -gradient.shape[0] % size)).reshape(size, -1)


@dataclass(frozen=True)
class Gathering:
    """FSDP's all-gather of one unit, agreed on before it is made."""

    agreement: Agreement
    number: int

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, async_op: bool = False
    ) -> dist.Work | None:
        self.agreement.before_gathering(self.number)
        with together():
            return all_gather(output_tensor, input_tensor, group=group, async_op=async_op)


class Sharded:
    """``parallel=shard`` (``didi_core.training.parallel.Parallel``)."""

    name = SHARD

    def __init__(self, processes: Processes, device: torch.device) -> None:
        with together():
            mesh = init_device_mesh(device.type, (processes.size,))
        self.agreement = Agreement(processes, mesh)
        self.bare: dict[int, nn.Module] = {}
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # nobody writes into it

    def place(self, network: nn.Module, like: Sequence[nn.Module] = ()) -> None:
        """Shard a network in place. An outline gets its shards from those of ``like``: it is never whole."""
        if id(network) in self.bare:
            return
        self.bare[id(network)] = outlined(network)
        mesh = self.agreement.mesh
        blocks: list[Any] = [*blocks_of(network)]
        for block in blocks:
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
            return_freed(mesh.device_type)
        root: Any = fully_shard(network, mesh=mesh, reshard_after_forward=False)
        root.set_requires_gradient_sync(False)  # ours are averaged by agreement
        root.set_reshard_after_backward(False, recurse=False)  # at the end of the phase
        fill(network, like)
        root._get_fsdp_state()._lazy_init()  # FSDP does so in ``forward``, and networks are called by other methods
        for block in blocks:
            block.set_modules_to_backward_prefetch([block])  # nothing but what is used
        for module in [root, *blocks]:
            self._add(module, network)
        return_freed(mesh.device_type)
        # FSDP reshards a network whose state is read or loaded; within a phase it is needed again.
        network.register_load_state_dict_post_hook(lambda module, keys: self._again(module))
        network.register_state_dict_post_hook(lambda module, *rest: self._again(module))

    def _add(self, module: Any, network: nn.Module) -> None:
        shards = tuple(own_parameters(module))
        if not shards:
            return
        module.unshard()
        whole = tuple(own_parameters(module))
        module.reshard()
        number = len(self.agreement.units)
        self.agreement.units.append(Unit(module, network, whole, shards))  # type: ignore[arg-type]
        module.set_custom_all_gather(Gathering(self.agreement, number))

    def _again(self, network: Any) -> None:
        if self.agreement.open:
            network.unshard()

    @contextmanager
    def phase(self, learner: nn.Module | None = None) -> Iterator[None]:
        """Within, networks can be called; at the end the learner's shards have the averaged gradients added."""
        agreement = self.agreement
        for unit in agreement.units:
            if not unit.is_block:
                unit.module.unshard()
        agreement.learning = frozenset(i for i, unit in enumerate(agreement.units) if unit.network is learner)
        agreement.open = True
        yield
        agreement.finish()
        agreement.open = False
        for unit in agreement.units:
            unit.module.reshard()
        return_freed(agreement.mesh.device_type)

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        """Nothing: gradients are averaged at the end of a phase."""

    @torch.no_grad()
    def whole(self, network: N) -> N:
        """The network with whole weights, as it was before it was sharded, on every process. Shards are freed one by
        one on the way: it cannot be trained any more."""
        if id(network) not in self.bare:
            return network
        made: Any = self.bare[id(network)]
        state, filled = dict(network.state_dict()), dict[int, nn.Parameter]()
        for name, empty in list(made.named_parameters(remove_duplicate=False)):
            if id(empty) not in filled:
                with together():
                    value = state[name].full_tensor()
                filled[id(empty)] = nn.Parameter(value, requires_grad=empty.requires_grad)
                _free(state[name], value)
            owner, _, last = name.rpartition(".")
            setattr(made.get_submodule(owner), last, filled[id(empty)])
        for name, buffer in made.named_buffers():
            buffer.copy_(network.get_buffer(name))
        restored: N = made.train(network.training)
        return restored

    def close(self) -> None:
        """Free the shards that are left."""
        for unit in self.agreement.units:
            for shard in unit.shards:
                _free(shard)
        return_freed(self.agreement.mesh.device_type)


def _free(shard: Tensor, kept: Tensor | None = None) -> None:
    """Free the storage of a shard, unless what is kept lies in it, as the whole of a single process may."""
    storage = local(shard).untyped_storage()
    if kept is None or kept.untyped_storage().data_ptr() != storage.data_ptr():
        storage.resize_(0)


def return_freed(device: str) -> None:
    """Let the C library's allocator give freed memory back to the system, where networks are on the CPU.

    glibc keeps a freed tensor where something in use lies behind it, as shards lie behind the whole weights that they
    are cut from. So a process would go on holding most of what it held before it was sharded, and what it gathered in
    earlier phases. Other C libraries have no such call. PyTorch's own allocator of a GPU needs none.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if device == "cpu" and trim is not None:
        trim(0)
