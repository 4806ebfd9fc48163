"""Training loops: pretrain and distill share one loop, one optimiser recipe and one exact-resume state."""
