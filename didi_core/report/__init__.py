"""Tables, plots and pages of an evaluation for a reader."""
