"""A domain of letters as a tokenizer of transformers, for folders that are published."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from didi_core.types import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MASK = "<mask>"
NONE = ""  # the model would take a token named <unk> for the unknown one


class SpelledAsTokens:
    """A domain whose vocabulary spells one letter of its alphabet a token."""

    vocabulary: Vocabulary
    alphabet: str | tuple[str, ...]

    def transformers_tokenizer(self) -> PreTrainedTokenizerFast:
        """The letters, with BOS and EOS around them if there are any, and the mask as the token after the last.

        It has no token for unknown letters on purpose: it raises for them instead of changing a sequence in silence.
        """
        return letters_tokenizer(self.vocabulary, self.alphabet)


def letters_tokenizer(vocabulary: Vocabulary, alphabet: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of the letters of an alphabet. vocabulary: one that lists its spellings."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    spelled = [*(vocabulary.tokens or ()), MASK]
    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(spelled)}, unk_token=NONE))
    longest_first = sorted(alphabet, key=len, reverse=True)
    pattern = Regex("|".join(map(re.escape, longest_first)))
    backend.pre_tokenizer = pre_tokenizers.Split(pattern, "isolated")
    backend.decoder = decoders.Fuse()
    front, back = (None if i is None else spelled[i] for i in (vocabulary.bos, vocabulary.eos))
    ends = {token: spelled.index(token) for token in (front, back) if token is not None}
    if ends:
        whole = " ".join(token for token in (front, "$A", back) if token is not None)
        backend.post_processor = processors.TemplateProcessing(single=whole, special_tokens=list(ends.items()))
    special = {"bos_token": front, "eos_token": back, "mask_token": MASK}
    special["pad_token"] = None if vocabulary.pad is None else spelled[vocabulary.pad]
    known = {name: token for name, token in special.items() if token is not None}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **known)
