"""The judge: a small autoregressive model that tells how likely a sequence is. It is never the teacher.

transformers' GPT-2 architecture on the domain's own tokens, trained on natural sequences by
``pretrain objective=autoregressive``. Perplexity under it follows the published protocol: exp of the token-weighted
mean NLL, the end token included.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from didi_core.errors import InputError
from didi_core.files import sha256, write_atomic, write_json
from didi_core.fingerprint import model_hash
from didi_core.types import Sample, Vocabulary


@dataclass(frozen=True)
class JudgeConfig:
    """Sizes of the GPT-2 model; ``context`` bounds the tokens of one sequence, BOS and EOS included."""

    hidden: int = 192
    layers: int = 4
    heads: int = 6
    context: int = 512
    dropout: float = 0.0


class Judge(nn.Module):
    """GPT-2 over a domain's vocabulary (without the mask).

    The first token of a sequence is given, not scored: it should be BOS, as in ``Domain.encode``.
    """

    def __init__(self, config: JudgeConfig, vocabulary: Vocabulary) -> None:
        from transformers import GPT2Config, GPT2LMHeadModel

        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.network = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary.size,
                n_positions=config.context,
                n_embd=config.hidden,
                n_layer=config.layers,
                n_head=config.heads,
                activation_function="gelu_pytorch_tanh",  # GPT-2's own function, in one kernel
                resid_pdrop=config.dropout,
                embd_pdrop=config.dropout,
                attn_pdrop=config.dropout,
                bos_token_id=vocabulary.bos,
                eos_token_id=vocabulary.eos,
                attn_implementation="sdpa",  # type: ignore[call-arg]
            )
        )

    @property
    def context(self) -> int:
        """Most tokens of one sequence."""
        return self.config.context

    def token_nll(self, tokens: Int[Tensor, "B L"]) -> tuple[Float[Tensor, "B M"], Float[Tensor, "B M"]]:
        """NLL (nats) of every token given those before it, and a weight of 1 where it is not padding; M = L - 1.

        Padding stands on the right, so causality alone keeps it from changing anything.
        """
        if tokens.shape[1] > self.config.context:
            raise InputError(
                f"a sequence of {tokens.shape[1]} tokens exceeds the judge's context of {self.config.context}."
            )
        logits = self.network(input_ids=tokens[:, :-1], use_cache=False).logits.float()
        target = tokens[:, 1:]
        nll = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")
        real = torch.ones_like(nll) if self.vocabulary.pad is None else (target != self.vocabulary.pad).float()
        return nll, real

    def nll(self, tokens: Int[Tensor, "B L"]) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        """Summed NLL and number of scored tokens (EOS included) of each sequence."""
        nll, real = self.token_nll(tokens)
        return (nll * real).sum(1), real.sum(1)

    forward = nll


def autoregressive_loss(model: nn.Module, tokens: Int[Tensor, "B L"], stream: torch.Generator) -> Float[Tensor, ""]:
    """Mean NLL per scored token of a batch: what a judge is trained on."""
    del stream  # nothing is drawn
    nll, real = model.token_nll(tokens)  # type: ignore[operator]
    loss: Tensor = (nll * real).sum() / real.sum()
    return loss


def save_judge(folder: Path, judge: Judge, about: dict[str, object] | None = None) -> None:
    """Write model.safetensors and card.json."""
    tensors = {
        k: v.detach().cpu().contiguous().clone() for k, v in judge.state_dict().items() if k != "network.lm_head.weight"
    }
    write_atomic(folder / "model.safetensors", lambda path: save_file(tensors, path))
    card = {
        "kind": "judge",
        "architecture": "gpt2",
        "config": asdict(judge.config),
        "vocabulary": asdict(judge.vocabulary),
        "sha256": {"model.safetensors": sha256(folder / "model.safetensors")},
    }
    write_json(folder / "card.json", {**card, **(about or {})})


def load_judge(folder: Path) -> Judge:
    """Read a judge in eval mode; InputError names what is missing, damaged or of another kind."""
    try:
        card = json.loads((folder / "card.json").read_text())
    except FileNotFoundError:
        raise InputError(f"{folder} is not a judge: it has no card.json.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{folder / 'card.json'} is damaged: {error}") from None
    if card.get("kind") != "judge":
        raise InputError(f"{folder} holds a {card.get('kind', 'model of unknown kind')}, not a judge.")
    weights = folder / "model.safetensors"
    if not weights.is_file() or sha256(weights) != card["sha256"]["model.safetensors"]:
        raise InputError(f"{weights} is missing or does not match the hash in card.json: get the folder anew.")
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in card["vocabulary"].items()}
    judge = Judge(JudgeConfig(**card["config"]), Vocabulary(**fields))
    missing, unexpected = judge.load_state_dict(load_file(weights), strict=False)
    if unexpected or set(missing) - {"network.lm_head.weight"}:
        raise InputError(f"{weights} is of another architecture: missing {missing}, unexpected {unexpected}.")
    judge.network.tie_weights()
    return judge.eval()


class CausalModel(Protocol):
    """What judges: NLL of every token given those before it."""

    @property
    def context(self) -> int:
        """Most tokens of one sequence."""
        ...

    def token_nll(self, tokens: Int[Tensor, "B L"]) -> tuple[Float[Tensor, "B M"], Float[Tensor, "B M"]]:
        """NLL in nats of tokens 1 .. L-1, and the model's own weights, which are not used here."""
        ...


@dataclass
class JudgePerplexity:
    """Perplexity under a judge as a metric: per sample (summed NLL, tokens), value exp of their ratio.

    Texts are scored longest first in batches of at most ``token_budget`` tokens and remembered, so nothing is scored
    twice. A text without a token to score is undefined. One longer than the judge's context is an error, for what is
    beyond it would go unjudged; with ``windows`` it is scored in pieces instead, each but the first beginning with the
    last token of the piece before.
    """

    judge: CausalModel
    encode: Callable[[str], list[int]]
    name: str = "perplexity"
    label: str = "perplexity"
    better: Literal["lower", "higher", "neither"] = "lower"
    minimum: int = 1
    token_budget: int = 8192
    windows: bool = False
    about: str = ""
    _known: dict[str, tuple[float, float]] = field(default_factory=dict, repr=False)

    @cached_property
    def identity(self) -> str:
        """What the statistics depend on: the weights, and how long texts are read; "" for a judge without weights."""
        if not isinstance(self.judge, nn.Module):
            return ""
        return f"{model_hash(self.judge)} {self.judge.context} {self.windows}"

    @property
    def description(self) -> str:
        """Which judge: perplexities under two judges do not compare."""
        if self.about or not isinstance(self.judge, Judge):
            return self.about
        config, size = self.judge.config, sum(p.numel() for p in self.judge.parameters())
        shape = f"{config.layers} layers, {config.hidden} wide, {size / 1e6:.1f} M parameters"
        return f"under an autoregressive judge of its own (GPT-2 architecture, {shape})"

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, 2]: summed NLL in nats, and scored tokens."""
        fresh = {s.text: s for s in samples if s.text not in self._known}
        pieces = [(text, ids) for text, sample in fresh.items() for ids in self._pieces(sample)]
        sums = {text: (0.0, 0.0) for text in fresh}
        for batch in self._batches(sorted(pieces, key=lambda row: (-len(row[1]), row[0]))):
            for (text, ids), nll in zip(batch, self._score([ids for _, ids in batch]), strict=True):
                sums[text] = (sums[text][0] + nll, sums[text][1] + len(ids) - 1)
        self._known |= {text: both if both[1] else (float("nan"), float("nan")) for text, both in sums.items()}
        return np.array([self._known[s.text] for s in samples], dtype=np.float64).reshape(-1, 2)

    def _pieces(self, sample: Sample) -> list[list[int]]:
        """The ids of a text in runs that fit into the judge's context and have a token to score."""
        ids, context = self.encode(sample.text), self.judge.context
        if len(ids) <= context or self.windows:
            return [ids[i : i + context] for i in range(0, len(ids) - 1, context - 1)]
        raise InputError(
            f"sample {sample.id or sample.text[:30]!r} has {len(ids)} tokens, the judge's context {context}: "
            "leave it out, or use a judge with a longer context."
        )

    def _batches(self, rows: Sequence[tuple[str, list[int]]]) -> Iterator[list[tuple[str, list[int]]]]:
        """Runs of falling length within the token budget."""
        batch: list[tuple[str, list[int]]] = []
        for row in rows:
            if batch and (len(batch) + 1) * len(batch[0][1]) > self.token_budget:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    @torch.no_grad()
    def _score(self, rows: Sequence[list[int]]) -> list[float]:
        """Summed NLL of each row. Padding is on the right, where a causal model cannot see it, and is not counted."""
        width = len(rows[0])
        device = next(self.judge.parameters()).device  # type: ignore[attr-defined]
        tokens = torch.tensor([[*ids, *([0] * (width - len(ids)))] for ids in rows], device=device)
        ends = torch.tensor([len(ids) - 1 for ids in rows], device=device)
        self.judge.eval()  # type: ignore[attr-defined]
        with torch.autocast(device.type, enabled=False):
            nll, _ = self.judge.token_nll(tokens)
        real = torch.arange(width - 1, device=device) < ends[:, None]
        totals: list[float] = (nll * real).sum(1).tolist()
        return totals

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        perplexity: np.ndarray = np.exp(means[..., 0] / means[..., 1])
        return perplexity
