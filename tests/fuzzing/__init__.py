"""Readers and parsers of everything that comes from outside, with good inputs and mutations of them."""
