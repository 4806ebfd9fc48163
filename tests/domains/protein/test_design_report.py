"""The report of scored designs: what it reads and shows, and that the page is self-contained."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from score_folder import score_folder

from didi_core.errors import InputError
from didi_protein.design_report import read_designs, write_design_report
from didi_protein.design_report.__main__ import main
from didi_protein.design_report.designs import BANDS, Design, band
from didi_protein.design_report.page import ROWS, html, ordered, other_columns, sentence
from didi_protein.design_report.plots import by_model, design_plots, mean_plddt, shortened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = score_folder(tmp_path_factory.mktemp("scored"), 24)
    write_design_report(made, {"command": "score input=<designs>"})
    return made


class Page(HTMLParser):
    """Addresses, scripts, and cells of the table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.scripts: list[str] = []
        self.rows = 0
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "action")]
        self._script = tag == "script"
        self.rows += tag == "tr"

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts.append(data)
        self._script = False


def test_designs_are_read_best_first_with_residues_and_structures(folder: Path) -> None:
    designs = read_designs(folder)
    values = [d.confidence for d in designs if d.confidence is not None]
    assert len(values) == 24 and values == sorted(values, reverse=True)
    first = designs[0]
    assert first.residues is not None and first.residues.mean() == pytest.approx(first.confidence, abs=0.01)
    atoms = first.atoms()
    assert atoms.shape == (len(first.sequence), 3) and np.abs(atoms.mean(0)).max() < 1e-6


@pytest.mark.parametrize(("plddt", "name"), [(95, "very high"), (90, "very high"), (89.9, "confident")])
def test_bands_are_those_of_alphafold_db(plddt: float, name: str) -> None:
    assert BANDS[band(plddt)][1] == name
    assert BANDS[band(50.0)][1] == "low" and BANDS[band(0.0)][1] == "very low"


def test_the_page_stands_alone(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert all(address.startswith(("pdb/", "#")) for address in page.addresses)
    assert all((folder / address).is_file() for address in page.addresses if address.startswith("pdb/"))
    assert not re.search(r"https?://|//cdn|@import|url\((?!#)", text)
    assert page.rows == 1 + 24
    assert {p.stem for p in (folder / "plots").glob("*.png")} == {
        "plddt_per_residue", "plddt_over_steps", "lengths", "novelty", "composition",
    }  # fmt: skip


def test_the_viewer_gets_the_best_structures(folder: Path) -> None:
    structures = json.loads(Page((folder / "report.html").read_text()).scripts[0])
    designs = read_designs(folder)
    assert [s["name"] for s in structures] == [d.id for d in designs[:6]]
    for shown, design in zip(structures, designs, strict=False):
        assert shown["letters"] == design.sequence
        assert np.allclose(np.reshape(shown["ca"], (-1, 3)), design.atoms(), atol=0.051)
        assert np.allclose(shown["plddt"], design.residues, atol=0.051)


def test_numbers_on_the_page_are_those_of_the_scores(folder: Path) -> None:
    designs = read_designs(folder)
    sure = sum(d.confidence is not None and d.confidence >= 70 for d in designs)
    assert f"{sure} of 24 folded designs" in sentence(designs)
    for model, members in by_model(designs).items():
        mean = mean_plddt(members)
        assert model in ("student", "teacher") and mean is not None
        assert mean.value == pytest.approx(np.mean([d.confidence for d in members]))
        assert mean.low < mean.value < mean.high


def test_designs_that_were_not_folded(tmp_path: Path) -> None:
    write_design_report(score_folder(tmp_path, 5, folded=False))
    text = (tmp_path / "report.html").read_text()
    assert "none of them folded" in text and 'id="viewer"' not in text and "viewer.js" not in text
    assert {p.stem for p in (tmp_path / "plots").glob("*.png")} == {"lengths", "composition"}


def test_a_single_design_and_a_failed_one(tmp_path: Path) -> None:
    designs = [Design("a", "MKT", {"plddt": 80.0}, np.array([70.0, 80, 90])), Design("b", "MK", {"status": "oom"})]
    assert {p.name for p in design_plots(designs, designs[:1])} == {"plddt_per_residue", "lengths", "composition"}
    text = html(designs, designs[:1], [], {}, "")
    assert "1 of 1 folded design is" in text and "oom" in text


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    score_folder(tmp_path, 2)
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    (tmp_path / "pdb" / "design_1.pdb").rename(tmp_path / "pdb" / "<b>&'x'.pdb")
    rows[0]["id"] = "<b>&'x'"
    rows[0]["model"] = "</script><script>alert(1)</script>"
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = write_design_report(tmp_path).read_text()
    assert "<b>&'x'" not in text and "<script>alert" not in text
    assert len(Page(text).scripts) == 3


def test_long_tables_are_cut_and_say_so() -> None:
    designs = [Design(f"d{i}", "MKT", {}) for i in range(ROWS + 7)]
    assert "The other 7 are in the files beside this page" in html(designs, [], [], {}, "")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (None, "there is no scores.jsonl in it"),
        ([], "there is no design in it"),
        (["{"], "line 1: this is not a row of scores"),
        (['{"id": "a"}'], "line 1: this is not a row of scores"),
        (['{"id": "a", "sequence": "MK", "plddt_per_residue": [1]}'], "1 values in plddt_per_residue for 2 residues"),
    ],
)
def test_folders_that_are_no_scores(lines: list[str] | None, told: str, tmp_path: Path) -> None:
    if lines is not None:
        (tmp_path / "scores.jsonl").write_text("".join(line + "\n" for line in lines))
    with pytest.raises(InputError, match=told):
        write_design_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_structure_of_another_length_is_told(tmp_path: Path) -> None:
    score_folder(tmp_path, 1)
    path = next((tmp_path / "pdb").glob("*.pdb"))
    lines: list[Any] = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1] + lines[3:]))
    with pytest.raises(InputError, match="CA atoms for .* residues of design 'design_1'"):
        write_design_report(tmp_path)


def test_the_command_writes_the_page_or_tells_why_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--best", "2"]) == 0
    assert len(json.loads(Page((folder / "report.html").read_text()).scripts[0])) == 2
    assert main([str(folder / "pdb")]) == 2
    assert "there is no scores.jsonl in it" in capsys.readouterr().err


HOSTILE = "<script>alert('x')</script>"


def test_every_word_of_the_user_is_escaped(tmp_path: Path) -> None:
    row = {"sequence": f"MK{HOSTILE}", "contig": HOSTILE, "status": HOSTILE}
    rows = [{"id": f"a{HOSTILE}{i}", **row} for i in range(3)]
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = write_design_report(tmp_path, {"command": HOSTILE, "nested": {HOSTILE: [HOSTILE]}})
    text = path.read_text()
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text


def test_one_id_for_two_designs_and_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    made = score_folder(tmp_path / "scored", 3)
    lines = (made / "scores.jsonl").read_text()
    (made / "scores.jsonl").write_text(lines + lines.split("\n")[0] + "\n")
    with pytest.raises(InputError, match=r"scores.jsonl, line 4: the id 'design_1' is there already, in line 1"):
        read_designs(made)
    (made / "scores.jsonl").write_text(lines)
    secret = tmp_path / "secret"
    secret.write_text("not of this folder")
    (made / "pdb/design_2.pdb").unlink()
    (made / "pdb/design_2.pdb").symlink_to(secret)
    with pytest.raises(InputError, match="design_2.pdb is a link that leads out of"):
        read_designs(made)


def test_unusual_line_separators_in_a_header_break_no_row(tmp_path: Path) -> None:
    rows = [{"id": f"d{i}", "sequence": "MKV", "note": "a\u2028b\x85c"} for i in range(3)]
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert [design.scores["note"] for design in read_designs(tmp_path)] == ["a\u2028b\x85c"] * 3


def test_one_design_has_one_confidence_on_the_page(tmp_path: Path) -> None:
    """Two means of pLDDT are there: each is named, and ranks, counts and sentences go by the one over CA atoms."""
    rows = [
        {"id": "a", "sequence": "MKT", "plddt": 71.0, "plddt_ca": 69.0, "plddt_per_residue": [69.0, 69, 69]},
        {"id": "b", "sequence": "MKV", "plddt": 68.0, "plddt_ca": 72.5, "plddt_per_residue": [72.5, 72.5, 72.5]},
    ]
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [d.id for d in read_designs(tmp_path)] == ["b", "a"]
    text = write_design_report(tmp_path).read_text()
    assert "1 of 2 folded designs is predicted with confidence (mean pLDDT over CA atoms at least 70)" in text
    assert "The most confident is b: 3 residues, pLDDT over CA atoms 72.5" in text
    assert "pLDDT (CA)" in text and "pLDDT (all atoms)" in text
    assert "The most confident first (mean pLDDT over CA atoms); a click" in text


@pytest.mark.parametrize(
    ("scores", "said"), [({}, "In the order of the file"), ({"pppl": 3.0}, "The lowest pseudo-perplexity first")]
)
def test_what_has_no_confidence_is_not_called_confident(scores: dict[str, float], said: str, tmp_path: Path) -> None:
    row = {"id": "a", "sequence": "MKT", **scores}
    (tmp_path / "scores.jsonl").write_text(json.dumps(row) + "\n")
    text = write_design_report(tmp_path).read_text()
    assert f"{said}; a click on a header sorts" in text and "ost confident" not in text


def test_labels_of_residues_do_not_lie_on_each_other() -> None:
    from didi_protein.design_report.plots import lifts

    places = np.array([[0.0, 0], [4, 5], [8, 6], [40, 1], [2, 30]])
    raised = places + np.stack([np.zeros(5), lifts(places)], axis=1)
    for i, (x, y) in enumerate(raised):
        assert not [j for j, (a, b) in enumerate(raised[:i]) if abs(a - x) < 10 and abs(b - y) < 12.5]
    assert lifts(places)[0] == lifts(places)[3] == 0
    assert lifts(np.array([[0.0, 0], [20, 0]])) == [0, 0]


def test_a_second_opinion_stands_beside_the_first_and_agreement_before_confidence() -> None:
    scores = {"plddt": 80.0, "steps": 8, "gravy": 0.1, "boltz_plddt": 75.0, "boltz_ptm": 0.5, "motif_rmsd": 1.0,
              "motif_1_rmsd": 0.5, "boltz_rmsd": 2.0, "boltz_tm": 0.8, "boltz_iptm": 0.4, "sc_tm": 0.9}  # fmt: skip
    names = [*ordered(other_columns([Design("a", "MK", scores)]))]
    shown = [name for name in names if name in scores]
    assert shown == ["plddt", "motif_rmsd", "motif_1_rmsd", "boltz_tm", "boltz_rmsd", "boltz_plddt", "boltz_ptm",
                     "boltz_iptm", "sc_tm", "steps", "gravy"]  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "models", "drawn"),
    [([8, 8], ["a", "a"], False), ([4, 8], ["a", "a"], True), ([8, 8], ["a", "b"], True), ([8, 8], [None] * 2, False)],
)
def test_a_curve_over_steps_has_two_points_or_two_models(steps: list[int], models: list[str], drawn: bool) -> None:
    designs = [
        Design(str(i), "MKTAYIAK", {"plddt": 80.0 + i, "steps": n, "model": model})
        for i, (n, model) in enumerate(zip(steps, models, strict=True))
    ]
    assert ("plddt_over_steps" in {plot.name for plot in design_plots(designs, [])}) == drawn


def test_structures_without_confidence_are_not_called_unfolded(tmp_path: Path) -> None:
    (tmp_path / "a.pdb").write_text("x")
    designs = [Design("a", "MK", {}, pdb=tmp_path / "a.pdb"), Design("b", "MK", {})]
    assert sentence(designs) == "2 designs, 1 of them with a structure, whose predictor left no confidence."
    assert sentence(designs[1:]) == "1 design, none of them folded: scores of the sequences only."
    assert sentence([Design("a", "MK", {"plddt": 80.0})]).startswith("1 of 1 folded design is predicted with")


def test_chains_of_a_complex_are_drawn_apart(tmp_path: Path) -> None:
    folder = score_folder(tmp_path, 2)
    lines = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    lines[0]["sequence"] = f"{lines[0]['sequence'][:20]}:{lines[0]['sequence'][20:]}"
    (folder / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = write_design_report(folder).read_text()
    (found,) = re.findall(r'<script type="application/json" id="structures">(.*?)</script>', page, re.S)
    chains = {one["name"]: one["chains"] for one in json.loads(found)}
    assert chains == {line["id"]: [*map(len, line["sequence"].split(":"))] for line in lines}
    assert "A dotted line is the end of a chain." in page


def test_long_names_lose_their_middle_above_a_plot() -> None:
    names = [f"2026-11-27_scaffold_round3_design_{i:04d}_variant_b" for i in range(20)]
    short = [shortened(name) for name in names]
    assert {len(name) for name in short} == {36} and len({*short}) == 20
    assert shortened("sample_1") == "sample_1" and shortened("x" * 36) == "x" * 36
