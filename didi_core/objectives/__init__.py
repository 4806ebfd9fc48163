"""Objectives: compositions of Rollout x Reward x Baseline x Anchor."""
