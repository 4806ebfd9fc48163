"""Public import path of our network as a transformers model, for exported folders and other code."""

from didi_core.checkpoints.huggingface import DiTForMaskedDiffusion, DiTHubConfig

__all__ = ["DiTForMaskedDiffusion", "DiTHubConfig"]
