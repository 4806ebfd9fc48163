"""A model to the hub and back, against a stand-in on this machine; and what its card says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import COMMIT, Hub, served, use
from tolerance import close

import didi_core
from didi_core.checkpoints.card import amend_card, load_denoiser, model_folder, read_card
from didi_core.cli import main
from didi_core.errors import InputError
from didi_core.evaluation.intervals import Interval
from didi_core.evaluation.wording import change
from didi_core.plugins import registry

SMALL = {
    "objective": "few_calls",
    "training.steps": 2,
    "training.batch_size": 8,
    "objective.states.samples": 8,
    "objective.states.steps": 2,
}
MEASURED = {"num": 12, "steps": [1, 2], "teacher_steps": [1, 2], "temperatures": [0.3, 1.0]}
NAME = "someone/chain-student"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distilled run with its report."""
    return didi_core.distill(domain="toy", run_dir=tmp_path_factory.mktemp("runs") / "run", evaluate=MEASURED, **SMALL)


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with served() as made:
        yield made


@pytest.fixture
def logged_in(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub.repositories.clear()
    monkeypatch.chdir(tmp_path)
    use(hub, tmp_path, monkeypatch, hub.token)
    return hub


def pushed(run: Path, to: str = "./out", *words: str) -> Path:
    assert main(["push", f"run={run}", f"to={to}", *words]) == 0
    return Path(to)


def test_a_pushed_model_comes_back_from_the_hub(run: Path, logged_in: Hub, tmp_path: Path) -> None:
    from didi_core.huggingface import DiTForMaskedDiffusion

    pushed(run, NAME, "out=folder", "private=true")
    files = logged_in.repositories[NAME]
    assert {*files} == {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert all(files[path.name] == path.read_bytes() for path in Path("folder").iterdir() if path.is_file())
    assert logged_in.private[NAME]
    tokens = registry().domain("toy", {}).template([5, 9])
    expected = load_denoiser(run)(tokens)
    for name in (NAME, f"{NAME}@main", f"{NAME}@{COMMIT}"):
        assert torch.equal(load_denoiser(name)(tokens), expected)
    close(DiTForMaskedDiffusion.from_pretrained(NAME)(input_ids=tokens).logits, expected)
    assert main(["pull", f"source={NAME}", "run_dir=mine"]) == 0
    assert torch.equal(load_denoiser("mine")(tokens), expected)
    assert Path("mine/README.md").read_text() == Path("folder/README.md").read_text()
    assert read_card(model_folder(Path("mine")))["training"] == read_card(run / "student")["training"]


def test_every_command_takes_the_name_on_the_hub(run: Path, logged_in: Hub) -> None:
    pushed(run, NAME)
    assert main(["sample", f"run={NAME}", "num=3", "steps=2", "out=theirs.jsonl"]) == 0
    assert main(["sample", f"run={run}", "num=3", "steps=2", "out=ours.jsonl"]) == 0
    texts = [
        [json.loads(line)["text"] for line in Path(f"{whose}.jsonl").read_text().splitlines()]
        for whose in ("theirs", "ours")
    ]
    assert texts[0] == texts[1]
    assert main(["export", f"run={NAME}", "format=didi", "out=again"]) == 0
    small = [f"{key}={value}" for key, value in SMALL.items()]
    assert main(["distill", "domain=toy", f"teacher={NAME}", "run_dir=second", "evaluate.enabled=false", *small]) == 0
    few = ["num=8", "steps=[1]", "teacher_steps=[1]"]
    assert main(["evaluate", f"run={NAME}", "teacher=bundled", "out=found", *few]) == 0
    assert json.loads(Path("found/report.json").read_text())["rows"]


def test_plain_transformers_code_samples(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    monkeypatch.chdir(tmp_path)
    folder = pushed(run)
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    made = model.generate(num=3, steps=2, template="ab____cd", seed=4)
    assert [sample.text[:2] + sample.text[-2:] for sample in made.samples] == ["abcd"] * 3 and made.nfe.denoiser == 2
    again = didi_core.sample(run, num=3, steps=2, template="ab____cd", seed=4)
    assert [sample.text for sample in made.samples] == [sample.text for sample in again.samples]
    domain = registry().domain("toy", {})
    assert tokenizer("abca").input_ids == domain.encode("abca") and tokenizer.mask_token_id == domain.vocabulary.mask
    with pytest.raises(InputError, match="'toy' has no such key"):
        model.generate(prompt="ab")
    model.config.card = {**model.config.card, "domain": "music"}
    with pytest.raises(InputError, match="unknown domain 'music'"):
        model.generate()


@pytest.mark.parametrize(
    ("domain", "keys", "begins", "has"),
    [("language", {"prompt": "The "}, "The ", ""), ("protein", {"contig": "3-5/MKTAYIAK/4"}, "", "MKTAYIAK")],
)
def test_a_pushed_teacher_takes_the_keys_of_its_domain(
    domain: str, keys: dict[str, str], begins: str, has: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from didi_core.huggingface import DiTForMaskedDiffusion

    monkeypatch.chdir(tmp_path)
    folder = pushed(registry().domain(domain, {}).bundled)
    made = DiTForMaskedDiffusion.from_pretrained(folder).generate(num=2, steps=1, **keys)
    assert all(sample.text.startswith(begins) and has in sample.text for sample in made.samples)
    assert "law `stratified`" in (folder / "README.md").read_text()


@pytest.mark.parametrize(("domain", "text"), [("toy", "abca"), ("protein", "MKTAYIAK"), ("language", "Ab é,\n\n<c")])
def test_the_published_tokenizer_is_the_domains(domain: str, text: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    made = registry().domain(domain, {})
    made.transformers_tokenizer().save_pretrained(tmp_path)
    read = AutoTokenizer.from_pretrained(tmp_path)
    ids = read(text).input_ids
    assert ids == made.encode(text) and read.decode(ids, skip_special_tokens=True) == text
    assert read.mask_token_id == made.vocabulary.mask == read.convert_tokens_to_ids(read.mask_token)


@pytest.mark.parametrize("domain", ["toy", "protein"])
def test_an_unknown_letter_is_an_error_and_not_another_sequence(domain: str) -> None:
    tokenizer = registry().domain(domain, {}).transformers_tokenizer()
    with pytest.raises(Exception, match="UNK"):
        tokenizer("?")


# --- the card


def test_the_card_is_made_from_report_and_run(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    about = ["licence=CC-BY-4.0", "attribution=letters, drawn by a chain", "limits=Not for music: it knows 20 letters."]
    text = (pushed(run, "./out", *about) / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert header["license"] == "cc-by-4.0" and {"toy", "student"} <= {*header["tags"]}
    report = json.loads((run / "report.json").read_text())
    plain = " ".join(text.replace("\n> ", "\n").split())
    said = [report["sentence"], *report["notes"], "letters, drawn by a chain", "Not for music: it knows 20 letters."]
    assert all(one in plain for one in (*said, "didi distill domain=toy", "Law `stratified` and grid `uniform`"))
    for row in report["comparisons"]:
        assert change(Interval(**row["ratio"])) in text
    commit = read_card(run / "student")["git_commit"]
    assert commit is None or commit in text  # an sdist has none
    card = read_card(Path("out"))
    assert (card["licence"], card["data_attribution"]) == ("CC-BY-4.0", "letters, drawn by a chain")
    assert max(map(len, text.splitlines())) <= 160


@pytest.mark.parametrize(("licence", "header"), [("MIT", {"license": "mit"}), (None, {})])
@pytest.mark.parametrize("own", ["Our Lab's terms, 2026"])
def test_a_licence_is_named_as_the_hub_names_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, licence: str | None, header: dict[str, str], own: str
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (pushed(run, "./out", *([f"licence={licence}"] if licence else [])) / "README.md").read_text()
    written = yaml.safe_load(text.split("---")[1])
    assert {key: value for key, value in written.items() if key.startswith("license")} == header
    text = (pushed(run, "./own", f"licence={own}") / "README.md").read_text()
    assert yaml.safe_load(text.split("---")[1])["license"] == "other" and f"## Licence\n\n{own}" in text


# --- what cannot be


def test_without_a_token_the_folder_is_kept(
    run: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    use(hub, tmp_path, monkeypatch, None)
    hub.asked.clear()
    assert main(["push", f"run={run}", f"to={NAME}", "out=kept"]) == 2
    said = capsys.readouterr().err
    assert "no token" in said and f"hf upload {NAME} kept" in said and "hf auth login" in said
    assert not hub.asked and main(["sample", "run=kept", "num=1", "steps=1", "out=one.jsonl"]) == 0


@pytest.mark.parametrize("fault", ["a wrong token", "nobody answers"])
def test_a_hub_that_refuses_leaves_the_folder(
    fault: str, run: Path, logged_in: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    if fault == "a wrong token":
        monkeypatch.setenv("HF_TOKEN", "hf_bad")
    else:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", f"run={run}", f"to={NAME}", "out=kept"]) == 2
    said = capsys.readouterr().err
    assert "the hub did not take it" in said and f"hf upload {NAME} kept" in said and "Traceback" not in said
    assert Path("kept/README.md").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "run is missing"),
        (["run=RUN"], "to is missing"),
        (["run=RUN", "to=https://huggingface.co/a/b"], "is an address"),
        (["run=RUN", "to=some one/name"], "is not a name on the hub"),
        (["run=RUN", "to=someone/na--me"], "is not a name on the hub"),
        (["run=RUN", "to=someone/name.git"], "is not a name on the hub"),
        (["run=RUN", "to=./a", "out=b"], "both name a folder"),
        (["run=RUN", "to=RUN"], "exists and is not empty"),
        (["run=RUN", "to=a/b", "out=RUN"], "exists and is not empty"),
        (["run=RUN", "to=./a", "report=nowhere.json"], "nowhere.json cannot be read"),
        (["run=RUN", "to=./a", "report=RUN/run.json"], "is of schema None"),
        (["run=nowhere", "to=./a"], "nowhere does not exist"),
        (["run=UNMEASURED", "to=./a"], "has no report.json"),
        (["run=OTHER", "to=./a", "report=RUN"], "is about another model"),
        (["run=MUSIC", "to=./a", "report=none"], "unknown domain 'music'"),
    ],
)
def test_wrong_input_is_told(
    words: list[str],
    message: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = tmp_path / "made"
    for name in ("UNMEASURED", "OTHER", "MUSIC"):
        shutil.copytree(run / "student", made / name / "student")
    amend_card(made / "MUSIC" / "student", domain="music")
    card = read_card(made / "OTHER" / "student")
    amend_card(made / "OTHER" / "student", sha256={**card["sha256"], "model.safetensors": "0" * 64})
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    for place in (run, *made.iterdir()):
        name = "RUN" if place == run else place.name
        words = [word.replace(name, str(place)) for word in words]
    assert main(["push", *words]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert not [path for path in empty.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("someone/absent", "no such model on the hub"),
        (f"{NAME}@v9", "has no revision 'v9'"),
        ("someone/other", "was not written by `didi push`"),
    ],
)
@pytest.mark.parametrize("command", ["sample", "pull"])
def test_what_the_hub_lacks_is_told(
    command: str, name: str, message: str, run: Path, logged_in: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    logged_in.repositories |= {NAME: {}, "someone/other": {"config.json": b"{}", "model.safetensors": b"x"}}
    words = [f"run={name}", "out=a.jsonl"] if command == "sample" else [f"source={name}", "run_dir=mine"]
    assert main([command, *words]) == 2
    assert message in capsys.readouterr().err and not Path("mine").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rows", [{"kind": "model"}], "rows[0].model is absent"),
        ("comparisons", "none", "comparisons is 'none'"),
        ("notes", [1], "notes[0] is 1"),
        ("quality", "beauty", "no metric has that name"),
        ("provenance", {"hashes": []}, "provenance.hashes is []"),
        ("sentence", None, "sentence is None"),
    ],
)
def test_a_damaged_report_is_told(
    key: str, value: object, message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged, out = tmp_path / "report.json", tmp_path / "out"
    damaged.write_text(json.dumps({**json.loads((run / "report.json").read_text()), key: value}))
    assert main(["push", f"run={run}", f"to={out}", f"report={damaged}"]) == 2
    said = capsys.readouterr().err
    assert f"{damaged} is damaged: " in said and message in said
    assert "Traceback" not in said and not out.exists()
