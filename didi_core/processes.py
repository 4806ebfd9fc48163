"""Several processes, started by torchrun: ranks, broadcasts of process 0, and means of gradients.

This is plain data parallelism. Every process holds the same networks and computes its slices of the batch. Before an
update, the gradients of all processes are averaged in one place, bucket by bucket. ``DistributedDataParallel`` does the
same with hooks around ``forward``. Here networks are called through ``trunk`` and ``head``, several times in a graph
and not always with all of their parameters, so those hooks would miss calls or wait for gradients that never come. The
price is that communication does not overlap with the backward pass.

A process that is stopped breaks no connection, so each gives signs of life through the store, in a thread, while it
computes or waits (``Pulse``). Who hears none of another for some minutes ends the run.

Work that is numbered, such as batches of samples and designs to score, is dealt out by ``mine`` and collected by
``gather``; its results do not depend on who did what. Only process 0 prints, shows progress and writes results.
Nothing here needs ``torch`` until there are several processes.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from didi_core.errors import DidiError, InputError, counted, first_line, warn

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


T = TypeVar("T")
STARTED_BY = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # variables that torchrun sets
PATIENCE = timedelta(days=7)  # how long processes wait while process 0 samples or measures
EXCHANGE = timedelta(minutes=30)  # how long gloo and NCCL wait for a process that lives and takes no part
SILENCE = 600.0  # seconds without a sign of life after which a process counts as lost; ``training.timeout`` sets it
FAILURE = "failure"  # key under which the first process that fails says so
BUCKET = 2**24  # numbers in one message


@dataclass(frozen=True)
class Processes:
    """The processes of one run, as one of them sees it; a single one unless torchrun started several."""

    rank: int = 0
    size: int = 1
    waiting: Any = None  # process group with a long timeout
    store: Any = None  # key-value store that all can read, even after one has ended
    pulse: Pulse | None = None

    @property
    def first(self) -> bool:
        """Whether this is process 0, which writes, prints and shows progress."""
        return self.rank == 0

    def allow_silence(self, seconds: float) -> None:
        """Set how long another process may give no sign of life."""
        if self.pulse is not None:
            self.pulse.limit = seconds

    def backend(self, device: torch.device) -> str | None:
        """Communication backend for gradients on that device; None for a single process."""
        if self.size == 1:
            return None
        return "nccl" if device.type == "cuda" else "gloo"

    def check_device(self, device: torch.device) -> None:
        """Raise InputError where several processes would share one GPU."""
        import torch

        here = int(os.environ.get("LOCAL_WORLD_SIZE", self.size))
        if self.size > 1 and device.type == "cuda" and here > torch.cuda.device_count():
            raise InputError(
                f"torchrun started {here} processes on a machine with {counted(torch.cuda.device_count(), 'GPU')}: "
                f"use --nproc-per-node={torch.cuda.device_count()}, or device=cpu."
            )

    def slices(self, each: int) -> range:
        """Numbers of this process's slices, with ``each`` slices per process."""
        return range(self.rank * each, (self.rank + 1) * each)

    def mine(self, things: Sequence[T]) -> Sequence[T]:
        """This process's part of a list that is the same on all: every ``size``-th thing, so that big and small mix."""
        return things[self.rank :: self.size]

    def gather(self, value: T) -> list[T]:
        """The values of all processes in order of rank, the same list on each, however long one of them takes."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        with together():
            dist.all_gather_object(found, value, group=self.waiting)
        return found

    def all_reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its mean over all processes; a missing one counts as zero if another has one."""
        if self.size == 1:
            return
        import torch

        found = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32)
        self._sum(found)
        gradients: list[Tensor] = []
        for parameter, count in zip(parameters, found.tolist(), strict=True):
            if count:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            self._sum(flat)
            pieces = flat.div_(self.size).split([gradient.numel() for gradient in bucket])
            for gradient, piece in zip(bucket, pieces, strict=True):
                gradient.copy_(piece.view_as(gradient))

    def mean(self, scalars: Mapping[str, float]) -> dict[str, float]:
        """Mean of every scalar over the processes, bit-identical on each. All must pass the same names."""
        if self.size == 1:
            return dict(scalars)
        import torch

        values = torch.tensor([scalars[name] for name in sorted(scalars)], dtype=torch.float64)
        self._sum(values)
        means = dict(zip(sorted(scalars), (values / self.size).tolist(), strict=True))
        return {name: means[name] for name in scalars}

    def broadcast(self, value: T) -> T:
        """Return process 0's value on all processes, however long it takes to arrive."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        box = [value if self.first else None]
        with together():
            dist.broadcast_object_list(box, src=0, group=self.waiting)
        return box[0]  # type: ignore[return-value]

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            self.broadcast(None)
            import torch.distributed as dist

            with together():
                dist.barrier(group=self.waiting)

    def least(self, number: int) -> int:
        """The smallest of the numbers that the processes give."""
        if self.size == 1:
            return number
        import torch
        import torch.distributed as dist

        found = torch.tensor(number, dtype=torch.int32)
        with together():
            dist.all_reduce(found, op=dist.ReduceOp.MIN)
        return int(found)

    def _sum(self, values: Tensor) -> None:
        import torch.distributed as dist

        with together():
            dist.all_reduce(values)


class Pulse:
    """Signs of life of one process, and its ear for the next one: so all are heard, however many there are.

    Time is counted in turns of a thread, so a job that is stopped and continued as a whole has missed nothing.

    limit: seconds of silence, or after another process has failed, in which this one ends.
    """

    def __init__(self, rank: int, size: int, store: Any, limit: float = SILENCE) -> None:
        self.rank, self.size, self.store, self.limit = rank, size, store, limit
        self.silent = self.failed = self.unanswered = 0.0
        self.over = threading.Event()
        self.threads = [threading.Thread(target=act, daemon=True) for act in (self._give_signs, self._listen)]
        self.store.set(f"pulse/{rank}", "0")

    @property
    def interval(self) -> float:
        """Seconds between two signs."""
        return min(self.limit / 10, 15.0)

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self.over.set()
        for thread in self.threads:  # none may be in the store when the group is gone
            thread.join(self.interval)

    def _give_signs(self) -> None:
        """It waits where the store does not answer; ``_listen`` goes on then."""
        count, heard = 0, b""
        while not self.over.wait(self.interval):
            with contextlib.suppress(RuntimeError):  # of a store that is gone, which is silence too
                self.store.set(f"pulse/{self.rank}", str(count := count + 1))
                now = self.store.get(f"pulse/{(self.rank + 1) % self.size}")
                self.failed += self.interval if self.store.check([FAILURE]) else 0.0
                self.silent, self.unanswered, heard = (self.silent if now == heard else 0.0), 0.0, now

    def _listen(self) -> None:
        while not self.over.wait(self.interval):
            self.silent += self.interval
            self.unanswered += self.interval
            if max(self.silent, self.failed) > self.limit:
                self._end()

    def _end(self) -> None:
        """End the process, whatever it waits for. It says why, unless another one has failed before."""
        code = DidiError.exit_code
        reports, code = (True, code) if self.unanswered > self.limit else first_failure(code, self.store)
        if reports and not self.over.is_set():
            warn(
                f"process {self.rank} of {self.size} has had no sign of life from process "
                f"{(self.rank + 1) % self.size} for {self.limit / 60:.3g} min: it was stopped, or its machine does not "
                "answer. What was finished is kept: repeat the command."
            )
        os._exit(code)


_current = Processes()
_joins = itertools.count()


def current() -> Processes:
    """The processes of this run."""
    return _current


def by_torchrun() -> bool:
    """Whether torchrun started this process."""
    return all(name in os.environ for name in STARTED_BY)


def several() -> bool:
    """Whether torchrun started more than one process."""
    return by_torchrun() and int(os.environ["WORLD_SIZE"]) > 1


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """Join the group of processes, and leave it when all are done. Only process 0 prints in between.

    After an error no process waits for another: ``first_failure`` decides which one reports it, and torchrun ends the
    others.
    """
    global _current
    if not several() or _current.size > 1:
        yield _current
        return
    import torch.distributed as dist

    _current = _meet()
    with contextlib.ExitStack() as stack:
        if not _current.first:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        yield _current
    _current.wait()
    if _current.pulse is not None:
        _current.pulse.stop()
    dist.destroy_process_group()
    _current = Processes()


def first_failure(code: int, store: Any = None) -> tuple[bool, int]:
    """Which process failed first. store: a connection of its own, for another thread.

    Returns:
        whether it is this process, which then reports the error; and the exit code of the first to fail.
    """
    if _current.size == 1:
        return True, code
    mine = f"{_current.rank} {code}"
    try:
        failed = (store or _current.store).compare_set(FAILURE, "", mine).decode()
    except RuntimeError:  # the process that held the store has ended
        return True, code
    return failed == mine, int(failed.split()[1])


def leave(code: int) -> NoReturn:
    """End the program. One of several processes ends without the interpreter's own end.

    Threads of gloo and NCCL outlive their group, because torch keeps meshes and networks keep each other. A thread that
    is at work while the interpreter is taken down may abort the process (SIGABRT) after all is done. What asked to be
    called at exit is called, unless the run failed: then a broken group may never answer it.
    """
    if not several():
        sys.exit(code)
    if _current.size == 1:  # the group has been left in order
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def launcher(program: str) -> str:
    """How the current processes were started, for a message: ``program`` alone or under torchrun."""
    if _current.size == 1:
        return program
    here = os.environ.get("LOCAL_WORLD_SIZE", str(_current.size))
    return f"torchrun --nproc-per-node={here} {program.removeprefix('python ')}"


def _meet() -> Processes:
    """Join the group: gloo between CPUs, NCCL between GPUs, each process with the GPU of its local rank."""
    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local < gpus:
        torch.cuda.set_device(local)
    try:
        shared, rank, size = next(rendezvous("env://"))
        store = PrefixStore(f"didi_core/{next(_joins)}", shared)
        pulse = Pulse(rank, size, store.clone())  # type: ignore[attr-defined]  # torch's stub lacks it
        backend = "cpu:gloo,cuda:nccl" if gpus and dist.is_nccl_available() else "gloo"
        dist.init_process_group(backend, None, EXCHANGE, size, rank, PrefixStore("group", store))
        waiting = dist.new_group(backend="gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise DidiError(f"the processes did not find each other at {place}: {first_line(error)}") from error
    pulse.start()
    return Processes(rank, size, waiting, store, pulse)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Within, a RuntimeError means that another process has ended or cannot be reached. Raises DidiError."""
    try:
        yield
    except RuntimeError as error:
        raise DidiError(
            f"process {_current.rank} of {_current.size} lost the connection to another one, which may have been "
            f"killed or have run out of memory ({first_line(error)}). What was finished is kept: repeat the command."
        ) from error


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors in order, in buckets of one type and device: up to ``BUCKET`` numbers, or a single larger tensor."""
    for _, alike in itertools.groupby(tensors, key=lambda tensor: (tensor.dtype, tensor.device)):
        bucket: list[Tensor] = []
        for tensor in alike:
            if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
                yield bucket
                bucket = []
            bucket.append(tensor)
        if bucket:
            yield bucket
