"""The results on a model card: tables from a report.json, and from the curves of a model's card.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from didi_core.errors import InputError
from didi_core.evaluation.intervals import Interval
from didi_core.evaluation.rows import Method
from didi_core.evaluation.wording import change, figure, headed
from didi_core.report import runs
from didi_core.report.to_json import SCHEMA
from didi_core.report.to_markdown import markdown_table
from didi_core.storage.files import read_json
from didi_core.storage.shape import NUMBER, Each, Maybe, misfit

# What a model card uses of a report.
SHAPE = {
    **runs.SHAPE, "sentence": str, "notes": Each(str), "quality": str, "entropy": Maybe(str), "baseline": Maybe(str),
    "provenance": {"hashes": Maybe(dict)},
    "metrics": Each({"name": str, "label": str, "description": str}),
    "rows": Each({"kind": str, "model": str, "n": int, "method": Maybe(runs.METHOD), "temperature": Maybe(NUMBER),
                  "values": Each((None, runs.INTERVAL), dict)}),
    "comparisons": Each({"model": str, "baseline": str, "method": runs.METHOD, "ratio": (None, runs.INTERVAL),
                         "verdict": str}),
}  # fmt: skip


def read_report(path: Path, card: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a report.json about the model of a card. Raises InputError for another file, or another model."""
    found = read_json(path, "Evaluate the model again.")
    if found.get("schema") != SCHEMA:
        raise InputError(
            f"{path} is of schema {found.get('schema')!r}, and a model card is made from {SCHEMA}: evaluate the model "
            "again."
        )
    wrong = misfit(found, SHAPE)
    named = {metric["name"] for metric in found["metrics"]} if not wrong else set()
    if not wrong and found["quality"] not in named:
        wrong = f"quality is {found['quality']!r}, and no metric has that name"
    if wrong:
        raise InputError(f"{path} is damaged: {wrong}. Evaluate the model again.")
    hashes = (found.get("provenance") or {}).get("hashes") or {}
    digest = hashes.get("student")
    measured = digest.get("model.safetensors") if isinstance(digest, Mapping) else digest
    if measured != card["sha256"]["model.safetensors"]:
        raise InputError(f"{path} is about another model (its weights have another hash): evaluate this one.")
    return found


def reported(report: Mapping[str, Any]) -> list[str]:
    """Sentence, caveats, and the comparison at matched entropy of a report; the rows as sampled where there is none."""
    labels = {metric["name"]: metric["label"] for metric in report["metrics"]}
    quality, at = labels[report["quality"]], report.get("reference_entropy")
    parts = [report["sentence"], *(f"> {note}" for note in report["notes"])]
    judged = next(m["description"] for m in report["metrics"] if m["name"] == report["quality"])
    parts += [f"{headed(quality)}: {judged}."] if judged else []
    matched = {(one["model"], _method(one).label, _method(one).steps): one for one in report["matched"]}
    cells = []
    for one in report["comparisons"]:
        key = (_method(one).label, _method(one).steps)
        cells.append(
            [
                f"{one['model']}, {key[0]}",
                str(key[1] or ""),
                *(_matched(matched.get((name, *key))) for name in (one["baseline"], one["model"])),
                change(_interval(one["ratio"])) if one["ratio"] else "–",
                one["verdict"],
            ]
        )
    if cells:
        headers = ["", "calls", report["baseline"], "model", "difference", "verdict"]
        parts.append(f"{headed(quality)} at matched entropy ({figure(at)} nats, that of held-out data):")
        parts.append(markdown_table(headers, cells))
    parts += ["As sampled at temperature 1, with 95 % intervals:", _as_sampled(report, labels)]
    return parts


def _as_sampled(report: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    names = [str(name) for name in (report["quality"], report.get("entropy")) if name in labels]
    cells = []
    for row in report["rows"]:
        if row["kind"] == "model" and row["temperature"] != 1:
            continue
        method = _method(row) if row["method"] else None
        calls = str(method.steps or "") if method else ""
        values = [runs.shown(row["values"].get(name)) for name in names]
        cells.append([f"{row['model']}, {method.label}" if method else row["model"], calls, f"{row['n']:,}", *values])
    return markdown_table(["", "calls", "samples", *(labels[name] for name in names)], cells)


def _method(one: Mapping[str, Any]) -> Method:
    return Method(**one["method"])


def _matched(one: Mapping[str, Any] | None) -> str:
    if one is None or one["status"] == "not reached":
        return "not reached"
    return runs.shown(one["quality"]) + (" (near)" if one["status"] == "near" else "")


def _interval(written: Mapping[str, Any]) -> Interval:
    """An interval of report.json, in which a number that is not finite is null."""
    numbers: dict[str, Any] = {key: float("nan") if value is None else value for key, value in written.items()}
    return Interval(**numbers)


def curve_table(curve: Mapping[str, Any]) -> list[str]:
    """The quality by number of calls that a card records."""
    rows = curve["by_steps"]
    names = [name for name in next(iter(rows.values())) if name != "samples"]
    cells = [[calls, str(row["samples"]), *(_range(row[name]) for name in names)] for calls, row in rows.items()]
    how = f"law `{curve['law']}`, grid `{curve['grid']}`, temperature 1, 95 % intervals"
    table = markdown_table(["calls", "samples", *names], cells)
    return [f"By number of calls, under the domain's own judge, {how}:", table]


def _range(triple: Sequence[float]) -> str:
    value, low, high = triple
    return f"{figure(value)} [{figure(low)}, {figure(high)}]"
