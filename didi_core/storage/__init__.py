"""Files on disk: atomic writes, samples in several formats, run directories."""
