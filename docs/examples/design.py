"""From a model to a table of designs around a motif, in ten lines; its output is in docs/design.md."""

import didi_core
from didi_protein.domain import asset

run = asset("teacher")  # the bundled teacher; or the run directory of your distillation
made = didi_core.sample(run, num=8, steps=8, contig="20-40/MKTAYIAK/30-50", exclude="C", law="stratified", seed=1)
scored = didi_core.score(made, fold="none", out="scored")  # fold="auto" predicts structures where it can
table = scored.to_frame().sort_values(["low_complexity", "longest_run"])
print(table[["id", "length", "contig", "low_complexity", "longest_run", "gravy"]].round(2).to_string(index=False))
best = didi_core.shortlist(scored, top=3, sort="low_complexity", out="shortlist")
print(*(row["sequence"] for row in best.rows), sep="\n")
