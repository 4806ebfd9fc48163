"""Plugins: found by entry points, checked, and queried for their offers."""

from didi_core.plugins.discovery import Registry, registry

__all__ = ["Registry", "registry"]
