"""From a model to a table of designs around a motif, in ten lines; its output is in docs/design.md."""

import didi_core
from didi_protein.domain import asset
from didi_protein.metrics.complexity import low_complexity_fraction
from didi_protein.metrics.protparam import properties
from didi_protein.metrics.repeats import longest_run

run = asset("teacher")  # the bundled teacher; or the run directory of your distillation
made = didi_core.sample(run, num=8, steps=8, contig="20-40/MKTAYIAK/30-50", exclude="C", law="stratified", seed=1)
table = made.to_frame()
table["low_complexity"] = table.text.map(low_complexity_fraction)
table["longest_run"] = table.text.map(longest_run)
table["gravy"] = table.text.map(lambda sequence: properties(sequence)["gravy"])
table = table.sort_values(["low_complexity", "longest_run"])
print(table[["id", "length", "contig", "low_complexity", "longest_run", "gravy"]].round(2).to_string(index=False))
