"""Coordinates: structures of any predictor, superposition, motifs, and scripts that show them."""
