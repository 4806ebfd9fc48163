"""The domain of proteins: ESM's vocabulary, FASTA, a split by similarity, metrics that need no download."""

from typing import TYPE_CHECKING

from didi_core.catalogue import on_demand

if TYPE_CHECKING:
    from .domain import ProteinDomain, create
    from .fasta import Reading, Skipped, read_fasta, write_fasta
    from .vocabulary import VOCABULARY

__all__ = ["ProteinDomain", "Reading", "Skipped", "VOCABULARY", "create", "read_fasta", "write_fasta"]
__getattr__ = on_demand(
    __name__,
    {
        "ProteinDomain": "domain",
        "create": "domain",
        "Reading": "fasta",
        "Skipped": "fasta",
        "read_fasta": "fasta",
        "write_fasta": "fasta",
        "VOCABULARY": "vocabulary",
    },
)
