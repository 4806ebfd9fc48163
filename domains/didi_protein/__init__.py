"""Proteins for didi_core: ESM's vocabulary, FASTA, a split by similarity, metrics that need no download."""

from .domain import ProteinDomain, create
from .fasta import Reading, Skipped, read_fasta, write_fasta
from .vocabulary import VOCABULARY

__all__ = ["VOCABULARY", "ProteinDomain", "Reading", "Skipped", "create", "read_fasta", "write_fasta"]
