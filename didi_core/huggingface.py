"""The public name of our network as a transformers model; exported folders and other people's code import it."""

from didi_core.checkpoints.huggingface import DiTForMaskedDiffusion, DiTHubConfig

__all__ = ["DiTForMaskedDiffusion", "DiTHubConfig"]
