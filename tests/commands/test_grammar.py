"""Values keep what was typed, whatever its letters, from the shell, in a sweep, from Python and in a printed line."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from didi_core.commands import COMMANDS
from didi_core.commands.compose import compose_jobs, compose_mapping
from didi_core.commands.grammar import Unreadable, choices, quoted, read, written
from didi_core.config import build, flatten
from didi_core.errors import InputError

NAMES = [
    "2026_11_27", "1_000", "1e3", "007", "0x1f", ".5", "1.0", "nan", "inf", "true", "null", "Null", "~", "on", "1:30",
    "epoch=1-step=1000.ckpt", "a b", "a,b", "[x]", "[x", "x]", "{a: 1}", "{", "(a", "a#b", "#", "it's", 'say "hi"',
    "a;b", "wow!", "größe", "模型", "e\u0301", "${HOME}", "$(x)", "a\\b", "ends\\", "\\'", "a'b\"c", "%s", "&", "|",
    "*", "-x", "a\tb",
]  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@pytest.mark.parametrize("name", [name for name in NAMES if name.lower() != "null"])
@pytest.mark.parametrize("kind", [str, Path, str | None])
def test_a_key_for_text_keeps_what_was_typed(name: str, kind: Any) -> None:
    assert read(name, kind) == name


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_the_same_from_the_shell_in_a_sweep_from_python_and_in_a_printed_line(name: str) -> None:
    typed = name if name.lower() != "null" else f"'{name}'"
    (job,) = compose_jobs("sample", [f"run={typed}"])
    assert job.config["run"] == name
    assert compose_mapping("sample", {"run": Path(name)}).config["run"] == str(Path(name))
    line = shlex.join(compose_mapping("sample", {"run": name}).words)
    assert compose_jobs("sample", shlex.split(line))[0].config["run"] == name
    swept = compose_jobs("sample", [f"run={quote(name)},other"], sweep=True)
    assert [job.config["run"] for job in swept] == [name, "other"]
    again = [compose_jobs("sample", job.words)[0].config["run"] for job in swept]
    assert again == [name, "other"]


def quote(name: str) -> str:
    """As an item of a list."""
    return written([name])[1:-1]


@pytest.mark.parametrize("name", NAMES)
def test_prose_and_labels_keep_what_was_typed(name: str) -> None:
    (job,) = compose_jobs("sample", ["run=x", f"prompt={name}"])
    assert job.config["conditioning"]["prompt"] == name
    given_labels = compose_jobs("score", [f"labels={written([name, 'b'])}"])[0].config["labels"]
    assert given_labels == [name, "b"]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("[v1_0,1_0]", tuple[str, ...], ["v1_0", "1_0"]),
        ("[4, 8]", tuple[int, ...], [4, 8]),
        ("4", tuple[int, ...], 4),
        ("1_000", int, 1000),
        ("1e-4", float, 1e-4),
        ("true", bool, True),
        ("null", Path | None, None),
        ("'null'", Path | None, "null"),
        ("80-120", str | tuple[str, ...] | None, "80-120"),
        ("[80,100-120]", str | tuple[str, ...] | None, ["80", "100-120"]),
        ("{4: 100, 8: 2}", dict[Any, Any], {4: 100, 8: 2}),
        ("['a,b','c\\'d']", tuple[Path, ...], ["a,b", "c'd"]),
        ("[a\\,b,c d]", tuple[str, ...], ["a,b", "c d"]),
        ("12", Any, 12),
        ("0.5", Any, 0.5),
        ("1_2", Any, "1_2"),
    ],
)
def test_other_keys_take_numbers_lists_and_groups(text: str, kind: Any, value: Any) -> None:
    made = read(text, kind)
    assert made == value and type(made) is type(value)


@pytest.mark.parametrize(
    "text", ["[1", "[1]]", "{a}", "{a: 1, a: 2}", "[a,,b]", "['a]", "[" * 2000, "{a:" * 2000, "[1 [2]]"]
)
def test_what_does_not_close_is_told(text: str) -> None:
    with pytest.raises(Unreadable):
        read(text, tuple[int, ...])


def test_values_of_a_sweep() -> None:
    assert choices("a,b") == ["a", "b"]
    assert choices("[1,2],[3]") == ["[1,2]", "[3]"]
    assert choices("'a,b',c\\,d,it's") == ["'a,b'", "c,d", "it's"]
    seeds = [job.config["seed"] for job in compose_jobs("distill", ["seed=range(1,4)"], sweep=True)]
    assert seeds == [1, 2, 3]
    rows = compose_jobs("distill", ["objective=glob(ablation_d*)"], sweep=True)
    assert [job.config["objective"]["name"] for job in rows] == ["ablation_decomposed", "ablation_density"]


@settings(max_examples=300, deadline=None)
@given(TEXT)
def test_whatever_is_written_is_read_back(text: str) -> None:
    assert read(written(text), str) == text
    assert read(written([text, "x"]), tuple[str, ...]) == [text, "x"]
    assert quoted(f"'{text}'") is None or text.count("'") <= quoted(f"'{text}'").count("'") + text.count("\\'")  # type: ignore[union-attr]


def fuzzed(word: str) -> None:
    """A word is a configuration or one message; never another exception."""
    try:
        build(COMMANDS["sample"].settings, compose_jobs("sample", ["run=x", word])[0].config)
    except InputError as error:
        assert str(error)


KEYS = ["steps", "guidance.scale", "options", "seed", "length", "temperature", "~steps", "+options.x", "grid", "contig"]
VALUES = st.one_of(
    TEXT,
    st.sampled_from(["nan", "inf", "-inf", "1e400", "9" * 30, "9" * 5000, "-0", "[[1]]", "{a: [1]}", "[" * 1500]),
    st.text("[]{}()'\",:=\\~+$ 01.eE-_nul", max_size=16),
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KEYS), VALUES)
def test_any_word_is_a_configuration_or_a_message(key: str, value: str) -> None:
    fuzzed(key if key.startswith("~") else f"{key}={value}")


WORDS = st.one_of(TEXT, st.tuples(st.sampled_from([*KEYS, "", "=", "run", "domain", "a.b.c"]), VALUES).map("=".join))


SLOW, HEAVY = pytest.param(400, marks=pytest.mark.slow), pytest.param(3000, marks=pytest.mark.heavy)


@pytest.mark.parametrize("tried", [SLOW, HEAVY])
def test_any_word_at_all(tried: int) -> None:
    settings(max_examples=tried, deadline=None)(given(WORDS)(fuzzed))()


@pytest.mark.parametrize("word", ["run=\udcff", "ru\udcffn=x", "run=a\0b"])
def test_bytes_that_are_no_text_are_told(word: str) -> None:
    with pytest.raises(InputError, match="not UTF-8 text"):
        compose_jobs("sample", [word])


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("steps=nan", "steps=nan does not fit: steps is an integer"),
        ("steps=inf", "steps=inf does not fit"),
        ("seed=" + "9" * 30, "seed=9+ does not fit: seed is an integer"),
        ("steps=007", "steps='007' does not fit"),
        ("power=nan", "power=nan does not fit: power is a finite number"),
        ("temperature=inf", "temperature=inf"),
        ("sampler={kind: rgas, scale: [nan,inf]}", r"sampler.scale=\[nan, inf\] does not fit"),
        ("sampler={kind: rgas, clip: nan}", "sampler.clip=nan does not fit"),
        ("top_p=nan", "top_p=nan"),
    ],
)
def test_numbers_that_are_none_are_told_at_the_door(word: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        build(COMMANDS["sample"].settings, compose_jobs("sample", ["run=x", word])[0].config)


@pytest.mark.parametrize("word", ["domain=NULL", "domain=null", "objective=null", "domain=[[1]]"])
def test_what_is_no_name_chooses_no_group(word: str) -> None:
    with pytest.raises(InputError, match="is a name|is one name"):
        compose_jobs("distill", [word])


def test_an_optional_group_may_be_null() -> None:
    whole = compose_jobs("distill", ["domain=toy"])[0].config
    assert compose_jobs("distill", ["domain=toy", "experiment=NULL"])[0].config == whole
    assert compose_jobs("distill", ["domain=toy", "sizes=null"])[0].config != whole


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("sample", "conditioning=null"), ("sample", "+conditioning=null"), ("score", "scoring=null"),
        ("filter", "filtering=null"), ("pretrain", "data=null"), ("pretrain", "experiment=null"),
    ],
)  # fmt: skip
def test_null_for_a_group_of_which_nothing_is_chosen_changes_nothing(command: str, word: str) -> None:
    assert compose_jobs(command, [word])[0].config == compose_jobs(command, [])[0].config


@pytest.mark.parametrize(("command", "word"), [("sample", "data=null"), ("evaluate", "sizes=null")])
def test_null_for_a_group_that_a_command_does_not_have_is_refused(command: str, word: str) -> None:
    with pytest.raises(InputError, match=f"{word.split('=')[0]} is not a key of {command}"):
        compose_jobs(command, [word])


def test_values_of_python_are_taken_as_they_are() -> None:
    def reward(texts: list[str]) -> list[float]:
        return [float(len(text)) for text in texts]

    job = compose_mapping(
        "distill",
        {
            "domain": "toy",
            "objective": "didi",
            "training": {"steps": np.int64(50), "lr": np.float32(0.5)},
            "data": {"length": (16, 32)},
            "evaluate.steps": np.array([4, 8]),
            "run_dir": Path("a b"),
            "cache": None,
            "objective.reward": ["scorer", reward],
        },
    )
    flat = flatten(job.config)
    assert (flat["training.steps"], flat["training.lr"], flat["evaluate.steps"]) == (50, 0.5, [4, 8])
    assert flat["data.length"] == [16, 32] and flat["run_dir"] == "a b" and flat["cache"] is None
    assert flat["objective.reward"][1] is reward
    assert flat["training.batch_size"] == 64, "the rest of the group is as it was"


@pytest.mark.parametrize(
    ("given_settings", "told"),
    [
        ({"training": {"stps": 5}}, "unknown key 'training.stps'. Did you mean 'training.steps'"),
        ({"domain": "toi"}, "unknown domain 'toi'. Did you mean 'toy'"),
        ({"objective": "didy"}, "unknown objective 'didy'. Did you mean 'didi'"),
        ({"step": 5}, "unknown key 'step'. Did you mean .*'training.steps'"),
        ({"hydra.run.dir": "x"}, "Hydra's own"),
    ],
)
def test_python_gets_the_same_hints(given_settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        compose_mapping("distill", given_settings)
