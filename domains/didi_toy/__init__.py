"""A domain whose truth is known: a Markov chain over a small alphabet, solved by forward-backward."""

from .chain import MarkovChain, default_chain
from .domain import ToyDomain, create
from .teacher import ExactTeacher

__all__ = ["ExactTeacher", "MarkovChain", "ToyDomain", "create", "default_chain"]
