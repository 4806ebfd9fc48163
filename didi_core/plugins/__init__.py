"""Plugins: found by entry points, checked, and asked for what they offer."""

from didi_core.plugins.discovery import Registry, registry

__all__ = ["Registry", "registry"]
