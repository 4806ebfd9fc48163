"""Training: one engine for every objective, its optimisers, checkpoints with exact resume, and dry runs."""
