"""``score`` and ``filter`` for proteins: structures, pseudo-perplexity, scores of the sequence, a shortlist."""
