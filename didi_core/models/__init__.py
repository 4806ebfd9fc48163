"""The networks: one attention with several backends, an MDLM-compatible DiT, ESM-2, and the scorer built from it."""
