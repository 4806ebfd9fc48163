"""The judge: a small autoregressive model that tells how likely a sequence is. It is never the teacher.

transformers' GPT-2 architecture on the domain's own tokens, trained on natural sequences by
``pretrain objective=autoregressive``. Perplexity under it follows the published protocol: exp of the token-weighted
mean NLL, the end token included.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from didi_core.errors import InputError
from didi_core.files import sha256, write_atomic, write_json
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
                resid_pdrop=config.dropout,
                embd_pdrop=config.dropout,
                attn_pdrop=config.dropout,
                bos_token_id=vocabulary.bos,
                eos_token_id=vocabulary.eos,
                attn_implementation="sdpa",  # type: ignore[call-arg]
            )
        )

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


@dataclass
class JudgePerplexity:
    """Perplexity under a judge as a metric: per sample (summed NLL, tokens), value exp of their ratio.

    Texts are scored longest first in batches of at most ``token_budget`` tokens and remembered, so nothing is scored
    twice. A text without a token to score is undefined; one longer than the judge's context is an error, not cut:
    what is beyond it would go unjudged.
    """

    judge: Judge
    encode: Callable[[str], list[int]]
    name: str = "perplexity"
    label: str = "perplexity"
    better: Literal["lower", "higher", "neither"] = "lower"
    minimum: int = 1
    token_budget: int = 8192
    _known: dict[str, tuple[float, float]] = field(default_factory=dict, repr=False)

    @property
    def description(self) -> str:
        """Which judge: perplexities under two judges do not compare."""
        config, size = self.judge.config, sum(p.numel() for p in self.judge.parameters())
        shape = f"{config.layers} layers, {config.hidden} wide, {size / 1e6:.1f} M parameters"
        return f"under an autoregressive judge of its own (GPT-2 architecture, {shape})"

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, 2]: summed NLL in nats, and scored tokens."""
        fresh = [s for s in {s.text: s for s in samples}.values() if s.text not in self._known]
        rows = [(s.text, self.encode(s.text)) for s in fresh]
        context = self.judge.config.context
        for sample, (_, ids) in zip(fresh, rows, strict=True):
            if len(ids) > context:
                raise InputError(
                    f"sample {sample.id or sample.text[:30]!r} has {len(ids)} tokens, the judge's context {context}: "
                    "leave it out, or use a judge with a longer context."
                )
        for batch in self._batches(sorted(rows, key=lambda row: (-len(row[1]), row[0]))):
            self._score(batch)
        return np.array([self._known[s.text] for s in samples], dtype=np.float64).reshape(-1, 2)

    def _batches(self, rows: Sequence[tuple[str, list[int]]]) -> Iterator[list[tuple[str, list[int]]]]:
        """Runs of like lengths within the token budget; of equal length where the vocabulary has no padding."""
        batch: list[tuple[str, list[int]]] = []
        for row in rows:
            longest = len(batch[0][1]) if batch else len(row[1])
            ragged = self.judge.vocabulary.pad is None and len(row[1]) != longest
            if batch and ((len(batch) + 1) * longest > self.token_budget or ragged):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    @torch.no_grad()
    def _score(self, rows: Sequence[tuple[str, list[int]]]) -> None:
        width, pad = len(rows[0][1]), self.judge.vocabulary.pad or 0
        if width < 2:
            self._known |= {text: (float("nan"), float("nan")) for text, _ in rows}
            return
        device = next(self.judge.parameters()).device
        tokens = torch.tensor([[*ids, *([pad] * (width - len(ids)))] for _, ids in rows], device=device)
        with torch.autocast(device.type, enabled=False):
            nll, count = self.judge.eval().nll(tokens)
        for (text, _), total, n in zip(rows, nll.tolist(), count.tolist(), strict=True):
            self._known[text] = (total, n) if n else (float("nan"), float("nan"))

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        perplexity: np.ndarray = np.exp(means[..., 0] / means[..., 1])
        return perplexity
