"""The most similar known protein of a design: an exact search, MMseqs2, or shared words."""
