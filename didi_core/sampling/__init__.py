"""Samplers, and generation as a user asks for it."""
