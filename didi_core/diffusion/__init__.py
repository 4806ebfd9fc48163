"""The process: schedules, masking, unmasking laws and grids, the walk, vocabulary heads. Pure maths of tensors."""
