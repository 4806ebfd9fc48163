"""The README.md of a published model, made from its card and from the report on it; a person need write nothing.

The same code writes those of the bundled models, so that each of their figures is the card's.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from didi_core.checkpoints.exported import PUBLIC
from didi_core.errors import plural
from didi_core.evaluation.wording import figure, listed
from didi_core.objectives.registry import OBJECTIVES
from didi_core.report.card_results import curve_table, reported
from didi_core.sampling.generate import trained_with

WIDTH = 110
ARXIV = re.compile(r"arXiv[: ](\d{4}\.\d{5})")
# What the hub calls a licence, for those that people put on weights; any other is "other" there, with its own name.
LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "openrail")
PACKAGES = ("python", "didi-core", "torch", "transformers")  # whose versions are shown
STUDENT, TEACHER, JUDGE = "student", "teacher", "judge"
BUNDLED = "bundled"


@dataclass(frozen=True)
class Published:
    """What a model card is made of.

    name: its title: ``owner/name`` of the hub, or what the bundled model is called.
    card: content of card.json. parameters: numbers in its weights, of the networks that are published.
    report: content of a report.json about it, if there is one.
    place: where it can be loaded from: its name on the hub, a folder of ``push``, or ``bundled`` with the program.
    tokenizer: whether one lies beside it.
    """

    name: str
    card: Mapping[str, Any]
    parameters: int
    report: Mapping[str, Any] | None = None
    place: str = BUNDLED
    tokenizer: bool = False

    @property
    def training(self) -> Mapping[str, Any]:
        """How it was trained, as far as its card says."""
        return self.card.get("training") or {}

    @property
    def kind(self) -> str:
        """``student``, ``teacher`` or ``judge``."""
        if self.card.get("kind") == JUDGE:
            return JUDGE
        return STUDENT if self.card.get("teacher") else TEACHER


def model_card(model: Published) -> str:
    """The text of README.md: a header for the hub; what it is, use, results, data, limits, licence and citation."""
    sections: list[tuple[str, list[str]]] = [
        ("Use", _use(model)),
        ("How to sample", _sampling(model)),
        ("Results", _results(model)),
        ("Data", _data(model)),
        ("How it was made", _made(model)),
        ("Limits", _limits(model)),
        ("Licence", [str(model.card.get("licence") or "Not stated by whoever published it.")]),
        ("Citation", _citation(model)),
    ]
    parts = [_header(model), f"# {model.name}", _wrapped(_what(model))]
    for title, blocks in sections:
        parts += [f"## {title}", *map(_wrapped, blocks)] if blocks else []
    return "\n\n".join(parts) + "\n"


def _wrapped(block: str) -> str:
    """A paragraph, quotation or list in lines of at most ``WIDTH`` letters; code and tables as they are."""
    if block.startswith(("    ", "|", "```")):
        return block
    lines = block.split("\n") if block.startswith("- ") else [" ".join(block.split("\n"))]
    indents = {"- ": "  ", "> ": "> "}
    return "\n".join("\n".join(_lines(one, "", indents.get(one[:2], ""))) for one in lines)


def _lines(text: str, first: str, others: str) -> list[str]:
    """A text cut at spaces, with what each line begins with."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )


def _command(words: str) -> str:
    """A command as indented code, continued on further lines where it is long."""
    return " \\\n".join(_lines(words, "    ", "        "))


def _header(model: Published) -> str:
    """The metadata that the hub reads."""
    from huggingface_hub import ModelCardData

    named = str(model.card.get("licence") or "")
    known: dict[str, Any] = {"license": named.lower()} if named.lower() in LICENCES else {}
    if named and not known:
        known = {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", named.lower())[:60].strip("-")}
    tags = ["didi_core", "masked-diffusion", str(model.card.get("domain")), model.kind]
    return f"---\n{ModelCardData(library_name='didi_core', tags=tags, **known).to_yaml()}\n---"


def _what(model: Published) -> str:
    domain, training = model.card.get("domain"), model.training
    size = f"{model.parameters / 1e6:.2f} million parameters"
    if model.kind == JUDGE:
        return (
            f"An autoregressive model of domain `{domain}`, {size}. It judges samples by their perplexity in reports "
            "of didi_core, and takes no part in any training of teacher or student."
        )
    if model.kind == TEACHER:
        how = f", trained with `objective={training['objective']}`" if training.get("objective") else ""
        return (
            f"A masked diffusion model of domain `{domain}`, {size}{how}. It fills masked positions over many network "
            "calls, and is a teacher from which students of few calls are distilled."
        )
    source = f"`{model.card['teacher'].get('name', 'unknown')}`"
    how = f" with `objective={training['objective']}`" if training.get("objective") else ""
    return (
        f"A few-step generator of domain `{domain}`, {size}: a student that was distilled from the teacher "
        f"{source}{how}. It writes in a few network calls what a masked diffusion model writes in many."
    )


def _use(model: Published) -> list[str]:
    domain, place, calls = model.card.get("domain"), model.place, max(_calls(model), default=16)
    if model.kind == JUDGE:
        return [f"    didi evaluate run=<run> judge={place}"]
    which = f"{place} domain={domain}" if place == BUNDLED else place
    lines = [f"    didi sample run={which} num=100 steps={calls}"]
    if model.kind == TEACHER:
        lines = [f"    didi distill domain={domain} teacher={place}"] + (lines if place != BUNDLED else [])
    if place == BUNDLED:
        return ["\n".join(lines)]
    kind = PUBLIC[model.card["architecture"]]
    code = f"""```python
from didi_core.huggingface import {kind}  # no remote code

model = {kind}.from_pretrained("{place}")
made = model.generate(num=8, steps={calls})  # and the keys of `didi sample`: prompt=, contig=, temperature=
for sample in made.samples:
    print(sample.text)
logits = model(input_ids=tokens).logits  # [B, L, V + 1], raw; the mask's column has no meaning
```"""
    said = f'`AutoTokenizer.from_pretrained("{place}")` gives a text the ids that the model reads.'
    return [code, *([said] if model.tokenizer else []), "On the command line:", "\n".join(lines)]


def _calls(model: Published) -> tuple[int, ...]:
    """The numbers of calls that a student was trained to write in."""
    calls = (model.training.get("rollout") or {}).get("calls") or ()
    return tuple(int(call) for call in (calls if isinstance(calls, list | tuple) else [calls]))


def _sampling(model: Published) -> list[str]:
    """What a sample of this model is, so that figures can be reproduced."""
    if model.kind == JUDGE:
        return []
    law, grid = trained_with(model.card)
    lines = [
        f"Law `{_named(law)}` and grid `{_named(grid)}`, which `law=auto` and `grid=auto` take from this card, at "
        "temperature 1."
    ]
    if calls := _calls(model):
        lines.append(f"Trained on rollouts of {listed(calls)} {plural('call', max(calls))}.")
    lines.append(
        "Every call runs the network once for all positions and writes some of them; no written position is taken back "
        "by `sampler=ancestral`. One seed and one `batch_size` give the same samples."
    )
    if known := [int(length) for length in model.card.get("lengths") or ()]:
        span = str(min(known)) if min(known) == max(known) else f"{min(known)} to {max(known)}"
        lines.append(f"Lengths in training: {span} free positions; without `length` they are drawn from these.")
    return [" ".join(lines)]


def _named(choice: Any) -> str:
    return str(choice.get("kind")) if isinstance(choice, Mapping) else str(choice)


def _results(model: Published) -> list[str]:
    parts = reported(model.report) if model.report is not None else []
    parts += [part for curve in model.card.get("steps_matter") or () for part in curve_table(curve)]
    held = model.card.get("validation") or {}
    if held:
        steps, loss = [*held.items()][-1]
        parts.append(f"Validation loss: {figure(float(loss), 4)} nats a position after {int(steps):,} updates.")
    return parts or ["None were measured for this card."]


def _data(model: Published) -> list[str]:
    data = {key: value for key, value in (model.card.get("data") or {}).items() if value is not None}
    text = str(model.card.get("data_attribution") or _own_samples(model) or "Not described by whoever published it.")
    if found := model.card.get("data_report"):
        text += f" {int(found.get('read') or 0):,} records were read." if isinstance(found, Mapping) else ""
    keys = ", ".join(f"`data.{key}={value}`" for key, value in data.items())
    return [text, *([f"Settings of the domain: {keys}."] if keys else [])]


def _own_samples(model: Published) -> str:
    """A sentence on training without natural data; '' for other data."""
    states, training = model.training.get("states"), model.training
    if isinstance(training.get("rollout"), Mapping):  # as few_calls, whose keys of ``states`` are not in use
        drawn = "a student's own rollouts, judged by its teacher"
    elif isinstance(states, Mapping) and states.get("source") == "teacher":
        drawn = f"{states['samples']:,} samples of its teacher, written in {states['steps']:,} calls each"
    elif training.get("reference") == "teacher":
        drawn = "samples of its teacher"
    else:
        return ""
    return f"No natural data: {drawn}. What the teacher was trained on is in the teacher's card."


def _made(model: Published) -> list[str]:
    training, about = model.training, model.card
    versions = about.get("versions") or ((model.report or {}).get("provenance") or {}).get("versions") or {}
    lines = {
        "Updates": training.get("steps"),
        "Batch": training.get("batch_size"),
        "Learning rate": training.get("lr"),
        "Seed": training.get("seed"),
        "Adapter": _adapter(training),
        "Trained": about.get("trained"),
        "Teacher's hash": str((about.get("teacher") or {}).get("hash") or "")[:12],
        "Weights of the run (SHA-256)": about["sha256"]["model.safetensors"][:12],
        "Commit of didi_core": about.get("git_commit"),
        "Versions": ", ".join(f"{name} {versions[name]}" for name in PACKAGES if name in versions),
    }
    parts = [_command(str(about["command"]))] if about.get("command") else []
    listing = "\n".join(f"- {name}: {value}" for name, value in lines.items() if value not in (None, ""))
    return [*parts, listing]


def _adapter(training: Mapping[str, Any]) -> str:
    """The low-rank adapter that was merged into the weights, in a few words; '' without one."""
    made = training.get("adapter")
    if not isinstance(made, Mapping):
        return ""
    return f"{made['kind']}, merged ({', '.join(f'{key} {value}' for key, value in made.items() if key != 'kind')})"


def _limits(model: Published) -> list[str]:
    own = model.card.get("limits")
    lines = [str(own)] if own else []
    if model.kind != JUDGE:
        lines.append(
            "A sample is a guess: nobody has checked that it is true, safe, or works. Perplexity falls whenever "
            "variety does, so compare models at equal entropy."
        )
    if model.kind == STUDENT:
        lines.append("It knows what its teacher knew, and its samples of one or two calls are the least consistent.")
    lines.append("Figures hold for the judge, data and settings above, and for one training run.")
    return ["\n".join(f"- {line}" for line in lines)]


def _citation(model: Published) -> list[str]:
    version = (model.card.get("versions") or {}).get("didi-core")
    edition = f", version = {{{version}}}" if version else ""
    papers = _papers(str(model.training.get("kind") or model.training.get("objective") or ""))
    entries = [
        f"@software{{didi_core, title = {{didi_core}}, author = {{The didi\\_core authors}}{edition}}}",
        *(f"@misc{{arxiv_{paper}, eprint = {{{paper}}}, archivePrefix = {{arXiv}}}}" for paper in papers),
    ]
    body = "\n".join(entries)
    whose = "The program, and the paper of the objective:" if papers else "The program:"
    return [whose, f"```bibtex\n{body}\n```"]


def _papers(objective: str) -> list[str]:
    """The arXiv numbers that an objective's module names; none for an objective that is not installed."""
    kind = OBJECTIVES.get(objective)
    module = sys.modules[kind.__module__] if kind is not None else None
    return ARXIV.findall((module.__doc__ or "") if module else "")[:1]
