"""Sharded training: the losses of replicated training, whatever each process calls; states that any number reads."""

from __future__ import annotations

import copy
import ctypes
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from process_group import outcome, start
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from didi_core.checkpoints.card import architecture_of
from didi_core.commands.compiling import check_compile
from didi_core.commands.distill import Settings
from didi_core.errors import InputError
from didi_core.models.adapter import AdapterSettings
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.judge import Judge, JudgeConfig
from didi_core.models.scorer import scorer_from_trunk
from didi_core.processes import Processes
from didi_core.run import Run
from didi_core.storage.run_dir import RunDirectory
from didi_core.training import placement as module
from didi_core.training.objective import Learner
from didi_core.training.optimiser import EMA, OptimiserSettings, adamw, apply_gradients, local
from didi_core.training.outlines import outlined
from didi_core.training.parallel import Replicated, blocks_of
from didi_core.training.placement import Needs, chosen
from didi_core.training.planning import Resident
from didi_core.training.recomputing import recomputing
from didi_core.training.settings import TrainingSettings
from didi_core.training.sharding import Sharded, return_freed
from didi_core.training.state import FolderKeeper
from didi_core.types import Vocabulary

VOCABULARY = Vocabulary(size=7, pad=6)
SCRIPT = str(Path(__file__).parent.parent / "sharded_run.py")


def small(layers: int = 2) -> DiT:
    torch.manual_seed(0)
    return DiT(DiTConfig(hidden=16, layers=layers, heads=2, conditioning=8), VOCABULARY).eval()


def learner(network: nn.Module, name: str = "student", ema: float | None = 0.9) -> Learner:
    return Learner(name, network, OptimiserSettings(), ema)


# --- what auto chooses


def test_what_is_needed_is_counted_in_bytes() -> None:
    teacher, student = small().requires_grad_(False), small()
    size = sum(p.nbytes for p in teacher.parameters())
    block = sum(p.nbytes for p in student.blocks[0].parameters())
    found = Needs.of([learner(student)], [teacher], 2)
    assert found.replicate == size * (1 + 1 + 2 + 1 + 1)  # teacher; weights, AdamW, average and gradients
    outside = size - 2 * block
    assert found.shard == found.replicate // 2 + 3 * outside + 2 * block
    assert Needs.of([learner(student, ema=None)], [], 2).replicate == size * 4


@pytest.mark.parametrize(("fits", "expected"), [("both", "replicate"), ("shard", "shard"), ("neither", "replicate")])
def test_auto_shards_where_only_that_fits(monkeypatch: pytest.MonkeyPatch, fits: str, expected: str) -> None:
    needs = Needs.of([learner(small(30))], [], 4)
    has = {"both": needs.replicate, "shard": (needs.replicate + needs.shard) // 2, "neither": needs.shard // 2}[fits]
    monkeypatch.setattr(module, "memory", lambda device: int(has / module.MEMORY_SHARE) + 1)
    made: list[str] = []

    def make(processes: Processes, device: torch.device) -> Replicated:
        made.append("made")
        return Replicated(processes)

    monkeypatch.setattr("didi_core.training.sharding.Sharded", make)
    run = Run(None, processes=Processes(0, 4))  # type: ignore[arg-type]
    _, reason = chosen("auto", run, [learner(small(30))], [])
    assert (made == ["made"]) == (expected == "shard")
    assert re.fullmatch(r"auto: weights, .* take \d\.\d\d GiB a process replicated and .* sharded, of \d\.\d", reason)


def test_auto_does_not_shard_what_networks_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "memory", lambda device: 1)
    teacher, student = small(), small()
    student.blocks = teacher.blocks
    run = Run(None, processes=Processes(0, 4))  # type: ignore[arg-type]
    found, reason = chosen("auto", run, [learner(student)], [teacher])
    assert found.name == "replicate" and reason == "auto: networks share weights"


def test_one_process_has_nothing_to_share() -> None:
    run = Run(None)  # type: ignore[arg-type]
    found, reason = chosen("shard", run, [learner(small())], [])
    assert found.name == "replicate" and reason == "one process"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"parallel": "shards"}, "unknown parallel 'shards'.*shard"),
        ({"parallel": "shard", "adapter": AdapterSettings()}, "adapters share one frozen trunk"),
        ({"parallel": "shard", "compile": True}, "compile=true and parallel=shard cannot be used together"),
    ],
)
def test_what_does_not_go_together_is_refused(keys: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(domain="toy", objective="didi", training=TrainingSettings(), **keys)
    with pytest.raises(InputError, match="activation_checkpointing=true cannot be used together"):
        check_compile(True, "auto", TrainingSettings(activation_checkpointing=True))


# --- memory


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library has no malloc_trim")
def test_freed_memory_between_what_is_used_goes_back_to_the_system() -> None:
    """What sharding leaves on a CPU: freed weights, and shards in use between them."""
    held = [torch.ones(25_000) for _ in range(600)]  # of 100 kB, which glibc never maps one by one
    first = Resident.read().now
    del held[::2]
    return_freed("cuda")
    kept = Resident.read().now
    return_freed("cpu")
    assert first - kept < 5_000_000 and kept - Resident.read().now > 20_000_000
    assert all(bool((one == 1).all()) for one in held)


# --- activation checkpointing


def networks() -> Iterator[tuple[nn.Module, Tensor]]:
    tokens = torch.randint(6, (2, 5), generator=torch.Generator().manual_seed(1))
    yield small(), tokens
    yield scorer_from_trunk(small(), 1), tokens
    torch.manual_seed(0)
    yield Judge(JudgeConfig(hidden=16, layers=2, heads=2, context=8, dropout=0.3), VOCABULARY), tokens


@pytest.mark.parametrize("which", [0, 1, 2], ids=["denoiser", "scorer", "judge with dropout"])
def test_recomputed_activations_give_equal_gradients(which: int) -> None:
    network, tokens = list(networks())[which]
    calls: list[int] = []
    for block in blocks_of(network):
        block.register_forward_hook(lambda *given: calls.append(1))

    def gradients() -> list[Tensor]:
        network.zero_grad()
        torch.manual_seed(5)  # of dropout
        made = network(tokens)
        sum(part.square().sum() for part in (made if isinstance(made, tuple) else [made])).backward()
        return [p.grad.clone() for p in network.parameters() if p.grad is not None]

    network.train(which == 2)
    plain = gradients()
    saved = {key: id(value) for key, value in blocks_of(network)[0].__dict__.items()}
    with recomputing([network]):
        again = gradients()
    assert len(plain) == len(again) > 0 and len(calls) == 2 * len(blocks_of(network))
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))
    assert {key: id(value) for key, value in blocks_of(network)[0].__dict__.items()} == saved


def test_a_network_without_blocks_cannot_recompute() -> None:
    with pytest.raises(InputError, match="a Linear has no blocks. Leave it out"), recomputing([nn.Linear(2, 2)]):
        pass
    assert architecture_of(small()) == "dit"


# --- a run with another number of processes


@pytest.mark.parametrize(("size", "each"), [(1, 4), (2, 2), (4, 1)])
def test_a_run_goes_on_where_the_batch_is_cut_as_before(tmp_path: Path, size: int, each: int) -> None:
    def config(accumulate: int) -> dict:
        return {"seed": 1, "training": {"accumulate": accumulate}}

    with RunDirectory.open(tmp_path / "run", config(2), (), 2):
        pass
    with RunDirectory.open(tmp_path / "run", config(each), (), size) as opened:
        assert opened.record["world_size"] == size
    with RunDirectory.open(tmp_path / "run", config(2), (), 2):
        pass
    with pytest.raises(InputError, match=r"cut into 1 slices, not 4. Start 2 \(torchrun.*set training.accumulate=4"):
        RunDirectory.open(tmp_path / "run", config(1), (), 1).__enter__()
    with pytest.raises(InputError, match=r"training.accumulate: 2 -> 4"):
        RunDirectory.open(tmp_path / "run", config(4), (), 2).__enter__()


# --- states


@pytest.fixture
def alone() -> Iterator[Processes]:
    """A process group of one, whose tensors can be shards."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield Processes()
    dist.destroy_process_group()


def parts(network: nn.Module, learnt: bool) -> dict:
    """A network with its optimiser and average, after a step."""
    optimiser, average = adamw(network.parameters(), OptimiserSettings()), EMA(network, 0.9)
    if learnt:
        for number, parameter in enumerate(network.parameters()):
            parameter.grad = torch.full_like(parameter, number / 10)
        apply_gradients(optimiser, OptimiserSettings(), 0.1)
        average.update(network)
    return {"student": network, "optimiser": optimiser, "ema": average}


def sharded(network: nn.Module) -> nn.Module:
    mesh = init_device_mesh("cpu", (1,))
    for owner in list(network.modules()):
        for name, parameter in list(owner.named_parameters(recurse=False)):
            owner.register_parameter(name, nn.Parameter(distribute_tensor(parameter.detach(), mesh, [Shard(0)])))
    return network


def flat(state: dict) -> dict[str, Tensor]:
    if "state" in state:
        state = {f"{i}.{key}": value for i, one in state["state"].items() for key, value in one.items()}
    return {key: value.full_tensor() if isinstance(value, DTensor) else value for key, value in state.items()}


@pytest.mark.parametrize("wrote", ["shards", "whole"])
@pytest.mark.parametrize("reads", ["shards", "whole"])
def test_a_state_is_read_as_it_is_held(tmp_path: Path, alone: Processes, wrote: str, reads: str) -> None:
    def made(how: str, learnt: bool) -> dict:
        network = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1))
        return parts(sharded(network) if how == "shards" else network, learnt)

    before, after = made(wrote, True), made(reads, False)
    keeper = FolderKeeper(tmp_path, run="r", processes=alone)
    keeper.save(3, before)
    folder = tmp_path / "checkpoints" / "step_0000003"
    assert (folder / "__0_0.distcp").exists() == (wrote == "shards")
    assert FolderKeeper(tmp_path, run="r", processes=alone).restore(after) == 3
    for name in before:
        ours, theirs = flat(before[name].state_dict()), flat(after[name].state_dict())
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
        held = [value for value in (after[name].state_dict()["state"][0] if name == "optimiser" else
                after[name].state_dict()).values() if value.ndim]  # fmt: skip
        assert all(isinstance(value, DTensor) == (reads == "shards") for value in held)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("shape", "student does not fit.*size mismatch for 0.weight"),
        ("names", "student does not fit.*its names differ"),
        ("other", "has no 'scorer'"),
        ("bytes", r"damaged: __0_0.distcp does not match.*resume=previous"),
        ("missing", r"damaged: .metadata is missing"),
        ("strange", r"__9_0.distcp is not in manifest"),
    ],
)
def test_shards_that_do_not_fit_are_refused(tmp_path: Path, alone: Processes, harm: str, message: str) -> None:
    keeper = FolderKeeper(tmp_path, run="r", processes=alone)
    keeper.save(3, parts(sharded(nn.Sequential(nn.Linear(3, 5))), True))
    folder = tmp_path / "checkpoints" / "step_0000003"
    wide, more = nn.Sequential(nn.Linear(4, 5)), nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 5))
    wanted = parts({"shape": wide, "names": more}.get(harm, nn.Sequential(nn.Linear(3, 5))), False)
    if harm == "other":
        wanted = {"scorer": wanted["student"]}
    if harm == "bytes":
        (folder / "__0_0.distcp").write_bytes(b"other")
    if harm == "missing":
        (folder / ".metadata").unlink()
    if harm == "strange":
        (folder / "__9_0.distcp").touch()
    kept = copy.deepcopy(wanted["scorer" if harm == "other" else "student"].state_dict())
    with pytest.raises(InputError, match=message):
        keeper.restore(wanted)
    now = wanted["scorer" if harm == "other" else "student"].state_dict()
    assert all(torch.equal(kept[key], now[key]) for key in kept)


def test_a_network_in_one_process_of_shards_is_whole_again(alone: Processes) -> None:
    """Also one that began without values; and what is left of the others is freed."""
    how, teacher, student, other = Sharded(alone, torch.device("cpu")), small(), outlined(small()), outlined(small())
    for network, like in ((teacher, ()), (student, [teacher]), (other, [teacher])):
        how.place(network, like)
    for network in (student, teacher):
        found = how.whole(network).state_dict()
        assert all(torch.equal(found[name], value) for name, value in small().state_dict().items())
    how.close()
    assert not any(local(p).untyped_storage().nbytes() for p in other.parameters())


# --- several processes


@pytest.mark.slow
@pytest.mark.parametrize("what", ["uneven", "didi", "idlm", "sdtt", "large"])
def test_losses_and_weights_are_those_of_replicated_training(what: str) -> None:
    """Of objectives with a scorer, a fake denoiser, blocks for the first call and an earlier student; where every
    process makes other calls than the others; and of a large teacher in bf16 with mixtures of experts, in bf16.

    The advantages of ``didi`` divide rewards by their spread, here a thousandth: rounding grows a thousandfold there.
    """
    scalars = 2e-4 if what == "didi" else 1e-5
    codes, _, err = outcome([SCRIPT, what, "replicate"])
    assert codes == [0, 0], err
    for told in err:
        found = json.loads(told.splitlines()[-1])
        assert found["compared"] > 1000 and found["scalars"] < scalars and found["weights"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["replicate", "shard"])
@pytest.mark.parametrize(
    ("fault", "codes", "message"),
    [
        ("killed", [1, -signal.SIGKILL], "process 0 of 2 lost the conn.*repeat"),
        ("nan", [1, 1], "step 1: loss is nan. The last checkpoint is intact"),
        ("asked", [130, 130], "interrupted. What was written is whole"),
    ],
)
def test_a_fault_of_one_process_ends_all_with_one_message(
    parallel: str, fault: str, codes: list[int], message: str
) -> None:
    """Within the time limit of ``outcome``."""
    ended, _, err = outcome([SCRIPT, fault, parallel])
    assert ended == codes, err
    said = [line for told in err for line in told.splitlines() if line.startswith("didi_core:")]
    assert len(said) == 1 and re.search(message, said[0]), err


@pytest.mark.slow
def test_a_process_that_is_stopped_ends_all_with_one_message() -> None:
    """It breaks no connection: the other one misses its signs of life. Continued, it ends too, and says nothing."""
    started, store = start([SCRIPT, "stopped", "shard"])
    _, said = started[0].communicate(timeout=60)
    assert started[0].returncode == 1
    assert "process 0 of 2 has had no sign of life from process 1 for 0.0167 min: it was stopped, or" in said
    assert said.count("didi_core:") == 1 and started[1].poll() is None
    started[1].send_signal(signal.SIGCONT)
    _, said = started[1].communicate(timeout=60)
    assert started[1].returncode == 1 and "didi_core:" not in said, said
    del store


@pytest.mark.slow
def test_a_kill_while_a_sharded_checkpoint_is_written_leaves_the_one_before(tmp_path: Path) -> None:
    """Between the shards and the manifest, then before one process has written its shards. The same command goes on."""
    for fault, codes, there in (("manifest", [-signal.SIGKILL, 1], 1), ("shards", [1, -signal.SIGKILL], 3)):
        ended, _, err = outcome([SCRIPT, "kept", fault, str(tmp_path)])
        assert ended == codes, err
        said = [line for told in err for line in told.splitlines() if line.startswith("didi_core:")]
        assert len(said) == 1 and re.search(r"process \d of 2 lost the connection to another one", said[0]), err
        found = FolderKeeper(tmp_path, run="r").checkpoints()
        assert found[-1].name == f"step_{there:07d}" and (found[-1] / "manifest.json").is_file()
    codes, _, err = outcome([SCRIPT, "kept", "none", str(tmp_path)])
    assert codes == [0, 0], err
    assert all(float(told.splitlines()[-1]) == 0 for told in err), "the weights of a run that was not killed"
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step_0000003", "step_0000004"]
