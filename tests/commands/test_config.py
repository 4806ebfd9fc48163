"""Configuration: every key is a field and every field a key, and an error gives the value and the fix."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from didi_core.commands import COMMANDS
from didi_core.commands.compose import compose_jobs, compose_mapping, group_options
from didi_core.commands.folders import use_own
from didi_core.config import build, config_folder, flatten, unknown_key, user_path
from didi_core.errors import InputError
from didi_protein.domain import create as create_protein
from didi_toy.domain import create as create_toy

CONFIGURED = [name for name, command in COMMANDS.items() if command.configured]


@dataclass(frozen=True)
class Inner:
    rate: float = 1.0
    pair: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Outer:
    count: int
    name: str = "x"
    flag: bool = False
    many: tuple[int, ...] = ()
    where: Path | None = None
    size: str | int | None = None
    mode: Literal["a", "b"] = "a"
    inner: Inner = field(default_factory=Inner)
    free: dict[str, Any] = field(default_factory=dict)


def test_build_converts_by_annotation() -> None:
    made = build(
        Outer,
        {
            "count": 3,
            "many": [1, 2],
            "where": "a/b",
            "size": 120,
            "mode": "b",
            "inner": {"rate": 2, "pair": [1, 2.5]},
            "free": {"k": [1]},
        },
    )
    assert made == Outer(3, "x", False, (1, 2), Path("a/b"), 120, "b", Inner(2.0, (1.0, 2.5)), {"k": [1]})
    assert build(Outer, {"count": 3, "many": 8}).many == (8,), "a single value is a list of one"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"count": "many"}, "count='many' does not fit: count is an integer"),
        ({"count": True}, "count=True does not fit"),
        ({"count": 2.5}, "count=2.5 does not fit"),
        ({"count": 1, "flag": 1}, "flag=1 does not fit: flag is true or false"),
        ({"count": 1, "many": [1, "b"]}, "many=.* does not fit: many is a list, each an integer"),
        ({"count": 1, "mode": "c"}, "mode='c' does not fit: mode is one of a, b"),
        ({"count": 1, "inner": 5}, r"inner=5 does not fit: inner is a group of keys \(rate, pair\)"),
        ({"count": 1, "inner": {"pair": [1, 2, 3]}}, r"inner.pair=\[1, 2, 3\] does not fit"),
        ({"count": 1, "inner": {"rat": 2}}, "unknown key 'inner.rat'. Did you mean 'inner.rate'"),
        ({}, "count is missing"),
        ({"count": None}, "count=null does not fit"),
    ],
)
def test_build_tells_key_value_and_what_would_fit(given: Mapping[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        build(Outer, given)


def test_unknown_key_looks_for_the_same_last_word_elsewhere() -> None:
    known = ["training", "training.steps", "training.lr", "seed"]
    assert "'training.steps'" in str(unknown_key("steps", known))
    assert "'seed'" in str(unknown_key("sed", known))
    assert "Known: seed, training" in str(unknown_key("zzz", known))


def _fields(kind: Any) -> set[str]:
    """Dotted names of all fields, nested dataclasses included."""
    names = set()
    hints = typing.get_type_hints(kind)
    for one in dataclasses.fields(kind):
        names.add(one.name)
        if dataclasses.is_dataclass(hints[one.name]):
            names |= {f"{one.name}.{inner}" for inner in _fields(hints[one.name])}
    return names


@pytest.mark.parametrize("command", CONFIGURED)
def test_yaml_and_dataclass_name_the_same_keys(command: str) -> None:
    overrides = ["domain=toy"] if command in ("evaluate", "import", "sample") else []
    keys = {key for key in flatten(compose_jobs(command, overrides)[0].config)}
    open_nodes = tuple(f"{node}." for node in ("data", "model", "objective", "num_at", "evaluate.num_at"))
    keys = {key for key in keys if not key.startswith(open_nodes)}
    assert keys == _fields(COMMANDS[command].settings)


@pytest.mark.parametrize("domain", ["toy", "protein"])
def test_every_data_key_is_one_of_the_domain(domain: str) -> None:
    data = compose_jobs("distill", [f"domain={domain}"])[0].config["data"]
    made = {"toy": create_toy, "protein": create_protein}[domain](**data)
    assert made.name == domain


def test_every_setting_of_the_protein_domain_is_in_its_yaml() -> None:
    from didi_protein import ProteinDomain

    data = compose_jobs("distill", ["domain=protein"])[0].config["data"]
    offered = {name for name in inspect.signature(ProteinDomain).parameters if name != "data_path"}
    assert set(data) == offered | {"path"}


@pytest.mark.parametrize("objective", group_options("objective"))
def test_every_objective_builds_and_its_file_has_all_its_keys(objective: str) -> None:
    command = "pretrain" if objective in ("nelbo", "autoregressive") else "distill"
    model = ["model=judge"] if objective == "autoregressive" else []
    config = compose_jobs(command, [f"objective={objective}", *model])[0].config
    assert config["objective"]["name"] == objective
    settings = build(COMMANDS[command].settings, config)
    assert settings.rules.name == objective
    optional = {f"{field.name}." for field in dataclasses.fields(settings.rules) if field.default is None}
    found = {key for key in flatten(config["objective"]) if not key.startswith(tuple(optional))}
    assert found == _fields(type(settings.rules))


@pytest.mark.parametrize("model", group_options("model"))
def test_every_model_builds(model: str) -> None:
    objective = "autoregressive" if model.startswith("judge") else "nelbo"
    config = compose_jobs("pretrain", ["domain=toy", f"model={model}", f"objective={objective}"])[0].config
    assert build(COMMANDS["pretrain"].settings, config).sizes.layers == config["model"]["layers"]


def test_ablation_rows_differ_by_one_part_each() -> None:
    rows = ["plain", "decomposed", "coupled", "omega", "density", "regularised"]
    configs = [compose_jobs("distill", [f"objective=ablation_{row}"])[0].config["objective"] for row in rows]
    leaves = [{k: v for k, v in flatten(c).items() if not isinstance(v, Mapping) and k != "name"} for c in configs]
    changes = [{k for k in a if a[k] != b[k]} for a, b in zip(leaves, leaves[1:], strict=False)]
    assert changes == [
        {"rollout.states"},
        {"coupled"},
        {"weighting.omega"},
        {"weighting.divide_by_density"},
        {"anchor.kl", "anchor.entropy"},
    ]


@pytest.mark.parametrize("command", ["distill", "pretrain"])
@pytest.mark.parametrize("word", ["objective=nope", "objective=[nope]", "objective.kind=nope", "objective.kind=3"])
def test_only_objectives_of_the_command_are_offered(command: str, word: str) -> None:
    with pytest.raises(InputError) as refused:
        build(COMMANDS[command].settings, compose_jobs(command, [word])[0].config)
    of_pretrain, of_distill = {"nelbo", "autoregressive"}, {"didi", "dmmd", "idlm", "sdtt"}
    told = set(re.findall(r"\w+", str(refused.value).partition("Known: ")[2]))
    expected, other = (of_pretrain, of_distill) if command == "pretrain" else (of_distill, of_pretrain)
    assert expected <= told and not told & other


@pytest.mark.parametrize(
    ("command", "overrides", "told"),
    [
        ("distill", ["domain=protien"], "unknown domain 'protien'. Did you mean 'protein'.*Known: language, pro"),
        ("distill", ["objective=didi_papr"], "unknown objective 'didi_papr'. Did you mean 'didi_paper'"),
        ("distill", ["training.step=5"], "unknown key 'training.step'. Did you mean 'training.steps'"),
        ("distill", ["steps=5"], "unknown key 'steps'. Did you mean .*'training.steps'"),
        ("distill", ["training.steps=3,4"], "several values: add --multirun"),
        ("distill", ["fast"], "'fast' is not a setting: write key=value"),
        ("distill", ["training.steps=[3"], "cannot be read: a ']' is missing.*quotes"),
        ("distill", ["~domain=[[1]]"], "~key removes a key, and has no value"),
        ("distill", ["~domain"], "a group cannot be removed"),
        *((command, ["domian=toy"], "unknown key 'domian'. Did you mean 'domain'")
          for command in ("distill", "pretrain", "sample", "evaluate", "score", "filter", "import")),
        ("distill", ["Domain=toy"], "unknown key 'Domain'. Did you mean 'domain'"),
        ("distill", ["objectve=didi"], "unknown key 'objectve'. Did you mean 'objective'"),
        ("distill", ["experimnt=objectives"], "unknown key 'experimnt'. Did you mean 'experiment'"),
        ("distill", ["datta.path=x"], "unknown key 'datta.path'. Did you mean 'data.path'"),
        ("distill", ["objective.rewrd=[]"], "Did you mean 'objective.reward', a key of objective=didi"),
        ("pretrain", ["modl=micro"], "unknown key 'modl'. Did you mean 'model'"),
        ("sample", ["contg=5"], "unknown key 'contg'. Did you mean 'contig'"),
        ("distill", ["~training.setps"], "unknown key 'training.setps'. Did you mean 'training.steps'"),
        ("distill", ["hydra.run.dir=x"], "Hydra's own have no effect here"),
        ("distill", ["hydra/launcher=joblib"], "Hydra's own have no effect here"),
        ("export", ["domain=toy"], "domain is not a key of export"),
        ("pretrain", ["model=tinny"], "unknown model 'tinny'. Did you mean 'tiny'"),
        ("distill", ["domain=toy.yaml"], "write domain=toy"),
        ("distill", ["domain=[[0]]"], r"a choice of domain is a name, not \[0\]"),
        ("distill", ["domain=[[]]"], r"a choice of domain is a name, not \[\]"),
    ],
)
def test_wrong_overrides_are_told_before_hydra_sees_them(command: str, overrides: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        compose_jobs(command, overrides)


@pytest.mark.parametrize(
    ("command", "overrides", "told"),
    [
        (
            "distill",
            ["objective=didi", "objective.baseline.group=3"],
            "objective.baseline.group=3 must divide the batch",
        ),
        (
            "distill",
            ["objective=didi", "objective.rollout.law=dialated"],
            "unknown unmasking law 'dialated'.*Did you mean 'dilated'",
        ),
        ("distill", ["+training.foo=1"], "unknown key 'training.foo'"),
        ("distill", ["device=gpu"], "unknown device 'gpu'"),
        ("distill", ["precision=fp16"], "unknown precision 'fp16'"),
        ("distill", ["resume=first"], "unknown resume 'first'"),
        ("distill", ["objective=nelbo"], "nelbo is not for distill but for pretrain. distill has: alpha, coupled"),
        (
            "distill",
            ["objective=didi", "objective.reward=[scorr]"],
            r"unknown reward 'scorr' \(objective.reward\[0\].kind\). Did",
        ),
        (
            "distill",
            ["objective=didi", "objective.reward.kind=both"],
            r"kind=both is now a list of two: objective.reward=\[scorer,",
        ),
        (
            "distill",
            ["objective=didi", "objective.reward=[{kind: scorer, smothing: 0}]"],
            r"mean 'objective.reward\[0\].smoothing'",
        ),
        (
            "distill",
            ["objective=didi", "objective.reward=[{kind: scorer, weight: -1}]"],
            r"objective.reward\[0\].weight=-1.0 is out of",
        ),
        (
            "distill",
            ["objective=didi", "objective.reward=[{kind: scorer, clip: 0}]"],
            r"objective.reward\[0\].clip=0.0 is out of range",
        ),
        ("distill", ["objective.reward=[scorer]"], "not a key of the chosen objective.*objective=didi"),
        ("distill", ["objective=didi", "objective.rollout.calls=[1]"], "with objective=few_calls"),
        ("distill", ["objective=didi", "objective.reward=[]"], "objective.reward is empty: give at least one reward"),
        ("distill", ["objective=didi", "objective.reward=[{weight: 2}]"], r"objective.reward\[0\]=.* names no reward"),
        (
            "distill",
            ["objective=didi", "objective.reward.kind=scorer", "objective.reward.credit=token"],
            "no reward of the list has",
        ),
        (
            "distill",
            ["objective=didi", "objective.reward.gradient_clip=0"],
            "objective.critic.gradient_clip=0.0 is out of range",
        ),
        ("distill", ["objective=didi", "objective.kind=dodo"], "unknown objective 'dodo'"),
        ("distill", ["student.noise_once=true"], "student.noise_once=true: there is no noise. Set student.noise, to 2"),
        (
            "distill",
            ["student.noise=2", "student.first_blocks=true"],
            "student.first_blocks=true: noise is not for the first call only. Set student.noise_once=true",
        ),
        ("distill", ["evaluate.steps=[0]"], "^evaluate.steps=0 is out of range"),
        ("distill", ["evaluate.num=0"], "^evaluate.num=0 is out of range"),
        ("sample", ["run=x", "contig=[10,(A"], r"^'contig=\[10,\(A' cannot be read"),
        ("pretrain", ["objective=autoregressive"], "set model=judge"),
        ("pretrain", ["model.heads=5"], "model.heads=5 must divide model.hidden"),
        ("sample", [], "run is missing"),
        ("sample", ["run=x", "steps=0"], "steps=0 is out of range"),
        ("sample", ["run=x", "temperature=-1"], "temperature=-1.0 is out of range"),
        ("sample", ["run=x", "sampler=rags"], "unknown sampler 'rags'.*Did you mean 'rgas'"),
        ("sample", ["run=x", "length=5", "template=a_"], "length and template exclude each other"),
        ("sample", ["run=x", "precision=legacy_fp32"], "is a sampler now: give sampler=joint_fp32"),
        ("evaluate", ["run=x", "laws=[{kind: threshold, bound: 1}]"], r"unknown key 'bound' \(law=threshold\)"),
        ("sample", ["run=x", "sampler={kind: p2, eat: 2}"], "unknown key 'sampler.eat'. Did you mean 'sampler.eta'"),
        ("evaluate", [], "give either run="),
        ("evaluate", ["samples=x.fasta"], "give domain="),
    ],
)
def test_settings_refuse_what_cannot_run(command: str, overrides: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        build(COMMANDS[command].settings, compose_jobs(command, overrides)[0].config)


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ([], [("scorer", 8.0, 1.0, 1e-3, 10), ("log_ratio", 8.0, 1.0, 1e-3, 10)]),
        (["objective.reward.kind=scorer"], [("scorer", 8.0, 1.0, 1e-3, 10)]),
        (["objective.reward=scorer"], [("scorer", 8.0, 1.0, 1e-3, 10)]),
        (["objective.reward={kind: log_ratio}"], [("log_ratio", 8.0, 1.0, 1e-3, 10)]),
        (["objective.reward.clip=4"], [("scorer", 4.0, 1.0, 1e-3, 10), ("log_ratio", 4.0, 1.0, 1e-3, 10)]),
        (
            ["objective.reward.scorer.clip=4", "objective.reward.lr=1e-5", "objective.reward.log_ratio.lr=1e-2"],
            [("scorer", 4.0, 1.0, 1e-5, 10), ("log_ratio", 8.0, 1.0, 1e-2, 10)],
        ),
        (
            ["objective.reward=[{kind: log_ratio, weight: 0.5, warmup: 3},scorer]", "objective.reward.warmup=7"],
            [("log_ratio", 8.0, 0.5, 1e-3, 3), ("scorer", 8.0, 1.0, 1e-3, 7)],
        ),
    ],
)
def test_ways_to_say_which_rewards(words: list[str], read: list[tuple[str, float, float, float, int]]) -> None:
    settings = build(COMMANDS["distill"].settings, compose_jobs("distill", ["objective=didi", *words])[0].config)
    found = [(e.kind, e.rule.clip, e.weight, e.critic.lr, e.critic.warmup) for e in settings.rules.rewards]
    assert found == read


def test_short_spellings_know_all_keys_of_critics() -> None:
    from didi_core.commands import spellings
    from didi_core.objectives import rewards

    assert spellings.CRITIC == rewards.CRITIC


def test_sweep_gives_one_job_for_each_combination() -> None:
    jobs = compose_jobs("distill", ["domain=toy,protein", "seed=1,2"], sweep=True)
    assert [(job.config["domain"], job.config["seed"]) for job in jobs] == [
        ("toy", 1),
        ("toy", 2),
        ("protein", 1),
        ("protein", 2),
    ]


def test_domain_brings_sizes_of_its_own_and_the_user_has_the_last_word() -> None:
    toy, protein = (compose_jobs("distill", [f"domain={name}"])[0].config["training"] for name in ("toy", "protein"))
    assert toy != protein
    assert compose_jobs("distill", ["domain=toy", "training.lr=0.5"])[0].config["training"]["lr"] == 0.5


def test_configs_exist_for_every_command() -> None:
    assert {path.stem for path in config_folder().glob("*.yaml")} == {*CONFIGURED, "common"}


@pytest.mark.parametrize(
    ("command", "words", "told"),
    [
        ("pretrain", ["domain=protein", "data.path="], "data.path= has no value: give one, or leave the key out"),
        ("pretrain", ["domain=language", "data.path=[a.txt,'']"], r"data.path=\[a.txt,''\] has no value"),
        ("distill", ["domain=language", "data.judge="], "data.judge= has no value.* for data.judge=bundled"),
        ("distill", ["domain=toy", "teacher="], "teacher= has no value: give one, .* for teacher=bundled"),
        ("evaluate", ["run=a", "teacher="], "teacher= has no value"),
        ("sample", ["run=a", "out="], "out= has no value"),
        ("push", ["run=a", "to="], "to= has no value"),
        ("pull", ["source=", "run_dir=z"], "source= has no value"),
        ("import", ["source=", "domain=protein"], "source= has no value"),
    ],
)
def test_a_key_without_a_value_is_refused(command: str, words: list[str], told: str) -> None:
    """An empty path is the present folder, and an empty name counts as none."""
    with pytest.raises(InputError, match=told):
        compose_jobs(command, words)


@pytest.mark.parametrize("content", [b"training: [steps\n", b"a: b: c\n", b"\tx: 1\n"])
def test_a_file_of_the_user_that_is_no_yaml_is_one_message(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_bytes(content)
    use_own(str(tmp_path), None)
    try:
        with pytest.raises(InputError, match="a file of --config-dir is not YAML: .*mine.yaml.*line 1"):
            compose_jobs("distill", ["domain=toy", "experiment=mine"])
    finally:
        use_own(None, None)


def test_a_domain_s_own_keys_of_a_sample_may_be_empty() -> None:
    (job,) = compose_jobs("sample", ["run=a", "prompt=", "suffix=."])
    assert job.config["conditioning"] == {"prompt": "", "suffix": "."}


def test_from_python_an_empty_value_is_refused_too() -> None:
    with pytest.raises(InputError, match="teacher= has no value"):
        compose_mapping("distill", {"domain": "toy", "teacher": ""})


def test_paths_of_users_are_expanded_in_one_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``~`` is the home folder everywhere, and an unknown ``~name`` is a path that does not exist, not a traceback."""
    root = Path(__file__).parents[2]
    code = [path for folder in ("didi_core", "domains", "plugins") for path in (root / folder).rglob("*.py")]
    assert [path.name for path in code if ".expanduser(" in path.read_text(encoding="utf-8")] == ["config.py"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a b.txt") == tmp_path / "a b.txt" and user_path("~no_such_user/x") == Path("~no_such_user/x")
    assert create_protein(path="~/mine.fasta").paths == (tmp_path / "mine.fasta",)


@pytest.mark.parametrize(
    ("command", "word", "made"),
    [
        ("evaluate", "num_at={4: 10}", {128: 200, 4: 10}),
        ("evaluate", "num_at={128:10}", {128: 10}),
        ("distill", "evaluate.num_at={4:10}", {4: 10}),
    ],
)
def test_number_of_samples_by_steps_is_written_as_documented(command: str, word: str, made: dict[int, int]) -> None:
    config = compose_jobs(command, [word, *(["domain=toy"] if command == "distill" else [])])[0].config
    assert (config["evaluate"] if command == "distill" else config)["num_at"] == made
