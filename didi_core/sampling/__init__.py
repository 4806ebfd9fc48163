"""Samplers, and generation of a requested number of samples."""
