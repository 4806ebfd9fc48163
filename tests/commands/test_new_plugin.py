"""new-plugin and plugins: every kind of scaffold is complete, its own tests pass, and errors are reported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from didi_core.cli import main
from didi_core.commands.new_plugin import SCAFFOLDS, Wish, files, parse
from didi_core.errors import InputError


def fake_install(folder: Path, wish: Wish) -> Path:
    """What pip leaves behind, on a path of its own: metadata with the entry point, and the package."""
    site = folder.parent / f"site_{wish.name}"
    info = site / f"didi_{wish.name}-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: didi-{wish.name}\nVersion: 0.1.0\n")
    points = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]["didi.plugins"]
    (info / "entry_points.txt").write_text("[didi.plugins]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
    (site / wish.words["package"]).symlink_to(folder / wish.words["package"])
    return site


@pytest.mark.parametrize("kind", SCAFFOLDS)
@pytest.mark.slow
def test_scaffold_is_listed_and_passes_its_own_tests(kind: str, tmp_path: Path) -> None:
    wish = Wish(f"my_{kind}", kind, tmp_path / "plugin")
    assert main(["new-plugin", wish.name, "--kind", kind, f"out={wish.folder}"]) == 0
    site = fake_install(wish.folder, wish)
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    listed = subprocess.run(
        [sys.executable, "-m", "didi_core", "plugins", "--json"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (record,) = [plugin for plugin in json.loads(listed.stdout) if plugin["name"] == wish.name]
    assert record["health"] == "ok"
    assert record["distribution"] == f"didi-{wish.name}"
    assert record["hooks"]
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=wish.folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout[-3000:]


@pytest.mark.parametrize("kind", SCAFFOLDS)
def test_scaffold_has_every_file_and_no_name_left_open(kind: str) -> None:
    made = files(Wish("my_thing", kind))
    assert {"pyproject.toml", "README.md", "didi_my_thing/__init__.py", "tests/test_my_thing.py"} <= {*map(str, made)}
    for path, text in made.items():
        assert "$" not in text and "PACKAGE" not in text, path
        if path.suffix == ".py":
            compile(text, str(path), "exec")
            assert max(map(len, text.splitlines())) <= 120, path
    assert ("configs" in " ".join(map(str, made))) == (kind == "domain")
    described = re.search('description = "(An?) (.)', made[Path("pyproject.toml")])
    assert described is not None and (described[1] == "An") == (described[2] in "aeiou")


@pytest.mark.parametrize("words", [["dna", "kind=metric"], ["--kind", "metric", "dna"], ["dna", "--kind=metric"]])
def test_settings_and_flags_mean_the_same(words: list[str]) -> None:
    assert parse(words) == Wish("dna", "metric")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "a plugin needs a name: new-plugin NAME"),
        (["My-Plugin"], "give a name of lower-case letters"),
        (["class"], "give a name of lower-case letters"),
        (["dna", "kind=sampelr"], "unknown kind of plugin 'sampelr'. Did you mean 'sampler'"),
        (["dna", "knd=metric"], "unknown setting 'knd'.*Did you mean 'kind'"),
        (["dna", "rna"], "takes one name: got 'dna' and 'rna'"),
        (["dna", "--kind"], "--kind needs a value"),
    ],
)
def test_wrong_wishes_are_told(words: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse(words)


def test_help_and_errors_list_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-plugin", "--help"]) == 0
    assert f"[--kind {'|'.join(SCAFFOLDS)}]" in capsys.readouterr().out
    assert main(["new-plugin", "mine", "kind=tree"]) == 2
    assert f"Known: {', '.join(sorted(SCAFFOLDS))}" in capsys.readouterr().err


def test_name_that_is_taken_and_folder_that_is_not_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new-plugin", "toy"]) == 2
    assert "there is a domain 'toy' already (plugin toy)" in capsys.readouterr().err
    (tmp_path / "didi_mine").mkdir()
    (tmp_path / "didi_mine" / "x").touch()
    assert main(["new-plugin", "mine"]) == 2
    assert "is not empty: name another folder with out=<folder>" in capsys.readouterr().err


def test_plugins_as_records(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    records = {record["name"]: record for record in json.loads(capsys.readouterr().out)}
    assert {"ancestral", "first_hitting", "rgas"} <= {*records["core"]["offers"]["samplers"]}
    assert records["toy"]["offers"] == {"domains": ["toy"]}
    assert main(["plugins"]) == 0
    assert "didi-core" in capsys.readouterr().out
