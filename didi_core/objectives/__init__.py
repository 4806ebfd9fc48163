"""Objectives: what a run minimises. One file each, registered by name in ``OBJECTIVES``."""
