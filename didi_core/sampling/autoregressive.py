"""A causal language model as a generator, so that one table compares a student with a model of its own size.

It fills the same templates as every other sampler, left to right, with the ``generate`` of transformers and its
key-value cache: one call per position, each over one token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from didi_core.checkpoints.judge import causal_network, judge_folder, load_judge
from didi_core.errors import InputError
from didi_core.sampling.base import Sampled, SampleRequest, TokenRule
from didi_core.types import NFE, Vocabulary

NAME = "autoregressive"


class CausalGenerator(nn.Module):
    """A causal model of transformers over a domain's tokens; the mask and forbidden tokens are never drawn."""

    def __init__(self, network: nn.Module, vocabulary: Vocabulary, context: int) -> None:
        super().__init__()
        self.network, self.vocabulary, self.context = network, vocabulary, context

    @torch.no_grad()
    def fill(
        self,
        template: Int[Tensor, "B L"],
        rule: TokenRule,
        generator: torch.Generator,
        progress: Callable[[], None] | None = None,
    ) -> Sampled:
        """Replace every mask of the template by a token drawn given the tokens before it; pinned tokens stay.

        A causal model cannot see what stands right of a gap; only the end of the sequence is imposed on it.

        Raises:
            InputError: the template begins with a mask, or is longer than the model's context.
        """
        from transformers import LogitsProcessorList

        free = template == self.vocabulary.mask
        if bool(free[:, 0].any()):
            raise InputError("a causal model needs a first token to begin with; this domain's templates have none.")
        if template.shape[1] > self.context:
            raise InputError(
                f"a template of {template.shape[1]} tokens exceeds the causal model's context of {self.context}: "
                "give a shorter length."
            )
        first = int(free.any(0).int().argmax())
        last = int(free.any(0).nonzero().max()) + 1
        read = self.vocabulary.as_read(template)
        forced = ForcedTokens(read, self.vocabulary, rule, progress)
        devices = [template.device] if template.is_cuda else []
        with torch.random.fork_rng(devices=devices):  # ``generate`` takes no generator: it reads the global one
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator, device=generator.device)))
            written = self.network.generate(  # type: ignore[operator]
                read[:, :first],
                attention_mask=torch.ones_like(read[:, :first]),
                max_new_tokens=last - first,
                min_new_tokens=last - first,
                do_sample=True,
                top_k=0,
                top_p=rule.top_p,
                temperature=1.0,  # ``ForcedTokens`` applies it, before the nucleus and after the bias
                use_cache=True,
                eos_token_id=None,
                pad_token_id=0,
                logits_processor=LogitsProcessorList([forced]),
            )
        tokens = template.clone()
        tokens[:, :last] = torch.where(free[:, :last], written, template[:, :last])
        calls = (free * torch.arange(template.shape[1], device=free.device)).max(1).values - first + 1
        return Sampled(tokens, NFE(denoiser=float(calls.float().mean())))


@dataclass(frozen=True)
class Autoregressive:
    """The sampler of a ``CausalGenerator``; no other network can be sampled with it."""

    needs_scorer: ClassVar[bool] = False
    stepwise: ClassVar[bool] = False
    uses_law: ClassVar[bool] = False

    def sample(self, request: SampleRequest) -> Sampled:
        if not isinstance(request.denoiser, CausalGenerator):
            raise InputError(
                "sampler=autoregressive is for causal models: give evaluate autoregressive=<folder or hub id>, and "
                "another sampler for the denoisers."
            )
        return request.denoiser.fill(request.template, request.rule, request.generator, request.progress)


class ForcedTokens:
    """A logits processor: pinned tokens of the template are certain, the others follow the rule over allowed tokens."""

    def __init__(
        self,
        template: Int[Tensor, "B L"],
        vocabulary: Vocabulary,
        rule: TokenRule,
        progress: Callable[[], None] | None,
    ) -> None:
        self.template, self.vocabulary, self.rule, self.progress = template, vocabulary, rule, progress
        self.allowed = vocabulary.allowed(template.device)

    def __call__(self, input_ids: Int[Tensor, "B n"], scores: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        wanted = self.template[:, input_ids.shape[1]]
        logits = scores[:, : self.vocabulary.size].float()
        if self.rule.bias is not None:
            logits = logits + self.rule.bias
        logits = (logits / self.rule.temperature).masked_fill(~self.allowed, -torch.inf)
        pinned = wanted != self.vocabulary.mask
        if bool(pinned.any()):
            certain = torch.full_like(logits[pinned], -torch.inf).scatter(1, wanted[pinned, None], 0.0)
            logits[pinned] = certain
        if self.progress:
            self.progress()
        return torch.full_like(scores, -torch.inf, dtype=torch.float32).index_copy(
            1, torch.arange(self.vocabulary.size, device=scores.device), logits
        )


def load_generator(name: str, vocabulary: Vocabulary, key: str = NAME) -> CausalGenerator:
    """A causal model: a run or folder of ``pretrain objective=autoregressive``, or a folder or hub id of transformers.

    Raises:
        InputError: it cannot be loaded (the message names the key to change), or its tokens are not the domain's.
    """
    own = judge_folder(name)
    if own is not None:
        judge = load_judge(own)
        _check_tokens(f"{key}={name}", judge.vocabulary.size, vocabulary)
        return CausalGenerator(judge.network, vocabulary, judge.config.context).eval()
    network = causal_network(name, key, "a run of pretrain objective=autoregressive")
    config = network.config
    _check_tokens(f"{key}={name}", int(config.vocab_size), vocabulary)
    context = int(getattr(config, "max_position_embeddings", 1 << 20))  # some architectures know no bound
    return CausalGenerator(network, vocabulary, context).eval()


def _check_tokens(what: str, size: int, vocabulary: Vocabulary) -> None:
    """Refuse a model of other tokens than the domain's; a few unused rows more do no harm."""
    if not vocabulary.size <= size < vocabulary.size + 128:
        raise InputError(
            f"{what} has {size} tokens, this domain {vocabulary.size}: an autoregressive model is compared on the "
            "domain's own tokens. Choose the tokenizer or the model to fit."
        )


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    """Whether two networks hold the same tensors, whatever wraps them."""
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(
        ours[k].shape == theirs[k].shape and torch.equal(ours[k].cpu(), theirs[k].cpu()) for k in ours
    )
