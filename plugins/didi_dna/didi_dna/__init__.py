"""DNA as a domain of didi_core."""

from .domain import DnaDomain

__all__ = ["DnaDomain"]
