"""From samples to findings: drawing, measuring, intervals, comparison at matched entropy."""
