"""What lies on disk: files that are complete or absent, samples, run directories."""
