"""``score`` and ``filter`` for proteins: structure prediction, pseudo-perplexity, scores of the sequence, a shortlist."""
