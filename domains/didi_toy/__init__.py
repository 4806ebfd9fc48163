"""A domain with a known distribution: a Markov chain over a small alphabet, solved by forward-backward."""

from typing import TYPE_CHECKING

from didi_core.catalogue import on_demand

if TYPE_CHECKING:
    from .chain import MarkovChain, default_chain
    from .domain import ToyDomain, create
    from .teacher import ExactTeacher

__all__ = ["ExactTeacher", "MarkovChain", "ToyDomain", "create", "default_chain"]
__getattr__ = on_demand(
    __name__,
    {
        "MarkovChain": "chain",
        "default_chain": "chain",
        "ToyDomain": "domain",
        "create": "domain",
        "ExactTeacher": "teacher",
    },
)
