"""What the page draws, without a browser: both models call by call, limits, wishes, files, and text that is markup."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import served, use

from didi_core.checkpoints.card import save_model
from didi_core.cli import main
from didi_core.device import Machine
from didi_core.domain.palette import GROUP_COLOURS
from didi_core.errors import InputError
from didi_core.models.dit import DiT, DiTConfig
from didi_core.plugins import registry
from didi_core.sampling.generate import SamplerSettings, generate, trained_with
from didi_core.web import drawing, markup
from didi_core.web.drawing import Asked, Limits, View, scores, watch, written
from didi_core.web.models import BUNDLED, Shelf
from didi_core.web.page import Offer, _shown, offered

LIMITS = Limits(length=60, num=4, calls=20)
ATTACK = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def shelf() -> Shelf:
    return Shelf(Machine(torch.device("cpu"), "fp32"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a student of the toy domain."""
    folder = tmp_path_factory.mktemp("run")
    network = DiT(DiTConfig(hidden=16, layers=1, heads=2, conditioning=8), registry().domain("toy", {}).vocabulary)
    save_model(folder / "student", network, {"domain": "toy", "data": {}, "teacher": {"name": "bundled"}})
    return folder


def views(shelf: Shelf, domain: str = "toy", model: str = BUNDLED, limits: Limits = LIMITS, **asked: Any) -> list[View]:
    return list(watch(shelf, domain, model, Asked(**asked), limits))


def test_both_models_are_shown_after_every_call_and_end_with_samples(shelf: Shelf) -> None:
    shown = views(shelf, "protein", num=2, calls=3, more_calls=5, length="20-30", seed=4)
    calls = [tuple(side.now.call for side in view.sides) for view in shown]
    assert calls == [(0, 0), (1, 1), (2, 2), (3, 3), (3, 4), (3, 5)]
    assert all(not v.samples[0] for v in shown[:-1]) and [len(s) for s in shown[-1].samples] == [2, 2]
    assert [side.label for side in shown[0].sides] == ["student", "teacher"]
    assert all(20 <= len(sample.text) <= 30 for side in shown[-1].samples for sample in side)


def test_the_bundled_student_writes_as_it_was_trained(shelf: Shelf) -> None:
    pair = shelf.find("protein", BUNDLED)
    law, grid = trained_with(pair.card)
    (first, *_), _ = views(shelf, "protein", calls=2, more_calls=2, length="25", seed=3)[-1].samples
    rows = pair.domain.template([25]).tolist()
    how = SamplerSettings(steps=2, law=law, grid=grid)
    made = generate(pair.domain, pair.first, settings=how, num=1, templates=rows, seed=3)
    assert first.text == made.samples[0].text and first.info["law"] == "stratified"


def test_a_run_stands_beside_its_teacher(shelf: Shelf, run: Path) -> None:
    shown = views(shelf, model=str(run), calls=2, more_calls=2)[-1]
    assert [side.label for side in shown.sides] == ["student", "teacher"]
    assert shelf.find("toy", str(run)) is shelf.find("toy", str(run)), "it is loaded once"


def test_a_model_of_the_hub_stands_beside_its_teacher(
    shelf: Shelf, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served() as hub:
        use(hub, tmp_path, monkeypatch, hub.token)
        assert main(["push", f"run={run}", "to=someone/student", "report=none", f"out={tmp_path / 'a'}"]) == 0
        assert offered(["toy", "protein"], ["someone/student"])["protein"][0] == "someone/student", "nothing is fetched"
        shown = views(shelf, model="someone/student", calls=2, more_calls=2)[-1]
        assert [side.label for side in shown.sides] == ["student", "teacher"]
        assert "someone/student" not in offered(["toy", "protein"], ["someone/student"])["protein"], "it is here now"
        with pytest.raises(InputError, match="model=someone/nothing"):
            views(shelf, model="someone/nothing")


def test_a_closed_reader_ends_the_sampling(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, pair = [], shelf.find("toy", BUNDLED)
    trunk = pair.first.trunk
    monkeypatch.setattr(pair.first, "trunk", lambda tokens: calls.append(1) or trunk(tokens))
    reader = watch(shelf, "toy", BUNDLED, Asked(calls=20, more_calls=20), LIMITS)
    for _ in range(3):
        next(reader)
    seen = len(calls)
    reader.close()  # type: ignore[attr-defined]
    assert 0 < seen <= 6 and len(calls) == seen


def test_two_visitors_do_not_disturb_each_other(shelf: Shelf) -> None:
    def texts(seed: int) -> Iterator[View]:
        return watch(shelf, "toy", BUNDLED, Asked(calls=4, more_calls=4, seed=seed), LIMITS)

    alone = [list(texts(seed))[-1].samples[0][0].text for seed in (1, 2)]
    together = list(zip(texts(1), texts(2), strict=True))[-1]
    assert [view.samples[0][0].text for view in together] == alone


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num": 1000}, "samples=1000 is out of range: this page takes 1 to 4"),
        ({"num": 0}, "samples=0 is out of range"),
        ({"num": None}, "samples=null does not fit"),
        ({"calls": 21}, "calls=21 is out of range"),
        ({"more_calls": "many"}, "calls of the second='many' does not fit"),
        ({"temperature": 0}, "temperature=0.0 is out of range"),
        ({"temperature": float("nan")}, "temperature=nan does not fit"),
        ({"length": "61"}, "length=61 is too long: this page writes 60"),
        ({"length": "30-999999999"}, "is too long"),
        ({"length": ATTACK}, "is neither a number nor a range"),
        ({"template": "_" * 61}, "a sequence of 61 tokens is too long"),
        ({"template": "ab_!"}, "letter '!'"),
        ({"template": "a" * 20_001}, "template has 20,001 characters"),
        ({"law": "alphabetical"}, "unknown unmasking law"),
        ({"seed": -1}, "seed=-1 is out of range"),
        ({"given": {"password": "x"}}, "password is not a field of domain 'toy'"),
    ],
)
def test_what_cannot_be_met_is_refused_in_words(shelf: Shelf, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        views(shelf, **asked)


@pytest.mark.parametrize(
    ("domain", "model", "message"),
    [
        ("protein", "RUN", "is one of domain 'toy' and does not fit the domain 'protein'"),
        ("protein", "nowhere", "unknown teacher 'nowhere'"),
        ("toy", ATTACK, "unknown teacher"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(shelf: Shelf, run: Path, domain: str, model: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        views(shelf, domain, str(run) if model == "RUN" else model)


def test_fields_of_the_domain_fix_what_they_should(shelf: Shelf) -> None:
    motif = views(shelf, "protein", given={"contig": "10-12/MKTAYIAK/8"}, calls=2, more_calls=2)[-1]
    assert all("MKTAYIAK" in side[0].text and side[0].info["contig"] for side in motif.samples)
    parent = "MKTAYIAKQRQISFVKSHFSRQ"
    given = {"parent": parent, "mask_fraction": "0.3"}
    for text in (parent, f">wild type\n{parent}\n"):
        redesigned = views(shelf, "protein", given={**given, "parent": text}, calls=2, more_calls=2)[-1].samples[0][0]
        changed = sum(a != b for a, b in zip(redesigned.text, parent, strict=True))
        assert changed <= round(0.3 * len(parent)) and redesigned.info["masked"] == 7
    prompt = views(shelf, "language", given={"prompt": ATTACK}, calls=1, more_calls=1, length="40")[-1]
    assert prompt.samples[0][0].text.startswith(ATTACK)
    assert "&lt;script&gt;" in markup.side(prompt, 0) and "<script>" not in markup.side(prompt, 0)


def test_a_message_names_the_field_and_not_a_file_of_ours(shelf: Shelf) -> None:
    with pytest.raises(InputError, match="^parent") as caught:
        views(shelf, "protein", given={"parent": "MK1T", "mask_fraction": "0.5"})
    assert "/" not in str(caught.value).split(":")[0]


def test_a_file_that_is_too_large_or_no_structure_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    big, other = tmp_path / "big.pdb", tmp_path / "other.pdb"
    with big.open("wb") as file:
        file.truncate(6_000_000)
    other.write_text(ATTACK)
    for path, message in ((big, "pdb has 6,000,000 bytes"), (other, "pdb")):
        with pytest.raises(InputError, match=message):
            views(shelf, "protein", given={"contig": "5/A1-4/5", "pdb": str(path)})


def test_letters_are_coloured_by_group_and_all_groups_are_in_the_legend(shelf: Shelf) -> None:
    shown = views(shelf, "protein", given={"contig": "4/KKKK/4"}, calls=2, more_calls=2)
    assert 'class="g3 p">KKKK</i>' in markup.side(shown[-1], 0)
    assert 'class="m">····</i>' in markup.side(shown[0], 0)
    assert " n\">" in markup.side(shown[1], 0) and " n\">" not in markup.side(shown[-1], 0)
    groups = registry().domain("protein", {}).letter_groups
    assert sorted("".join(groups.values())) == sorted("ACDEFGHIKLMNPQRSTVWY") and len(groups) <= len(GROUP_COLOURS)
    assert all(letters in markup.legend(shown[0].domain) for letters in groups.values())


def test_the_file_to_take_away_is_one_that_the_domain_reads(shelf: Shelf, tmp_path: Path) -> None:
    shown = views(shelf, "protein", num=2, calls=1, more_calls=1, length="20")[-1]
    samples = [*shown.samples[0], *shown.samples[1]]
    link = markup.download(shown.domain, samples)
    path = tmp_path / "a.fasta"
    path.write_bytes(base64.b64decode(re.findall(r"base64,([\w+/=]+)", link)[0]))
    assert path.read_bytes() == written(shown.domain, samples)
    read = shown.domain.read(path)
    assert [sample.text for sample in read] == [sample.text for sample in samples]
    assert read[0].id == "student_1_calls_1" and read[2].id == "teacher_1_calls_1"


def test_scores_are_those_that_so_few_samples_allow(shelf: Shelf) -> None:
    shown = views(shelf, "protein", num=1, calls=2, more_calls=2, length="30")[-1]
    found = scores(shown.domain, shown.samples[0])
    quality = shown.domain.metrics()[0]
    assert found[quality.name][1] == pytest.approx(float(quality.aggregate(quality.statistics(shown.samples[0])[0])))
    assert not {metric.name for metric in shown.domain.metrics() if metric.minimum > 1} & set(found)
    assert quality.label in markup.score_table(shown)


def test_networks_of_scores_are_on_the_device_of_the_page(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[tuple[str, torch.device]] = []
    monkeypatch.setattr(drawing, "on_device", lambda metrics, device: placed.extend((m.name, device) for m in metrics))
    shown = views(shelf, "protein", num=1, calls=1, more_calls=1, length="20")[-1]
    assert (shown.domain.metrics()[0].name, shelf.machine.device) in placed


def test_every_text_of_the_page_is_escaped(shelf: Shelf) -> None:
    offer = Offer(shelf, {"toy": (BUNDLED,)}, LIMITS)
    for asked, model in ((Asked(length=ATTACK), BUNDLED), (Asked(template=f"_{ATTACK}"), BUNDLED), (Asked(), ATTACK)):
        (parts,) = _shown(offer, "toy", model, asked, 0)
        assert "script" in parts[0] and "<script" not in "".join(parts)


def test_a_page_for_everyone_takes_only_the_models_that_it_offers(shelf: Shelf, run: Path) -> None:
    closed = Offer(shelf, {"toy": (BUNDLED,)}, LIMITS, is_open=False)
    (parts,) = _shown(closed, "toy", str(run), Asked(), 0)
    assert "is not among those of this page" in parts[0]
    assert offered(["toy", "protein"], [str(run), "owner/name"]) == {
        "toy": (str(run), "owner/name", BUNDLED),
        "protein": ("owner/name", BUNDLED),
    }
    with pytest.raises(InputError, match="is one of domain 'toy', which is not among"):
        offered(["protein"], [str(run)])
    assert next(iter(offered([], []))) == "protein", "letters with colours come first"
    with pytest.raises(InputError, match="unknown domain 'nothing'"):
        offered(["nothing"], [])
