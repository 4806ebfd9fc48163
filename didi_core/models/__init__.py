"""The networks: one attention with several backends, an MDLM-compatible DiT, and the scorer built from it."""
