"""Domains to build on: ``AlphabetDomain`` for sequences over an alphabet, ``TokenDomain`` for any tokens."""

from didi_core.sequences.alphabet import AlphabetDomain, alphabet_vocabulary
from didi_core.sequences.batches import SPLITS, epoch_batches
from didi_core.sequences.tokens import BUNDLED, TokenDomain

__all__ = ["BUNDLED", "SPLITS", "AlphabetDomain", "TokenDomain", "alphabet_vocabulary", "epoch_batches"]
