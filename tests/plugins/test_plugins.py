"""Plugins: collected by entry points, told by name when they fail, refused when two offer one name."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from didi_core import hookspecs
from didi_core.diffusion.laws import BUILT_IN, LAWS, Iid
from didi_core.errors import InputError
from didi_core.hookspecs import hookimpl
from didi_core.objectives.base import ObjectiveSettings
from didi_core.objectives.nelbo import Nelbo
from didi_core.plugins import discovery as plugins
from didi_core.plugins.checks import HOOKS
from didi_core.plugins.discovery import collect
from didi_core.plugins.kinds import KINDS, Kind
from didi_core.sampling.base import SampleRequest
from didi_toy import ToyDomain


class Point:
    """An entry point of a distribution that is not installed."""

    def __init__(self, name: str, module: Any, distribution: str = "other") -> None:
        self.name, self._module = name, module
        self.dist = types.SimpleNamespace(name=distribution, version="1.0")

    def load(self) -> Any:
        if isinstance(self._module, Exception):
            raise self._module
        return self._module


def module(**functions: Any) -> types.ModuleType:
    made = types.ModuleType("made_plugin")
    for name, function in functions.items():
        setattr(made, name, hookimpl(function))
    return made


def offers(name: str, value: Any = dict) -> types.ModuleType:
    return module(didi_register_domains=lambda: {name: value})


def test_own_domains_come_through_entry_points() -> None:
    points = {p.name for p in importlib.metadata.entry_points(group=plugins.GROUP)}
    assert {"protein", "toy"} <= points
    assert {"protein", "toy"} <= set(plugins.registry().names("domains"))
    assert plugins.registry().domain("toy", {"length": 5}).name == "toy"


def test_core_offers_its_laws_through_the_same_hook() -> None:
    found = collect([])
    assert found.names("laws") == [
        "blocks", "confidence", "dilated", "entropy_bound", "iid", "stratified", "threshold"
    ]  # fmt: skip
    assert found.names("grids") == ["cosine", "optimised", "power", "uniform"]
    assert {offer.plugin for offer in found.offers["laws"].values()} == {"core"}
    assert found.config_folders


def test_two_plugins_with_one_name_are_refused_and_both_are_named() -> None:
    points = [Point("a", offers("dna"), "didi-a"), Point("b", offers("dna"), "didi-b"), Point("c", offers("rna"))]
    found = collect(points)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"domain 'dna': 'a' of didi-a 1.0 and 'b' of didi-b 1.0. Uninstall one"):
        found.domain("dna", {})
    assert found.names("domains") == ["rna"], "a run that uses neither is not stopped"
    assert {p.name for p in found.plugins if p.health != "ok"} == {"a", "b"}


def test_names_of_the_core_cannot_be_taken() -> None:
    taken = module(didi_register_laws=lambda: {"iid": LAWS["dilated"]})
    found = collect([Point("bold", taken)])  # type: ignore[list-item]
    assert found.offers["laws"]["iid"].plugin == "core"
    assert "is the core's own and cannot be replaced" in found.plugins[-1].health


def test_plugin_that_fails_to_import_is_named_and_skipped() -> None:
    points = [Point("broken", ImportError("no module named x"), "didi-broken"), Point("good", offers("dna"))]
    found = collect(points)  # type: ignore[arg-type]
    assert found.names("domains") == ["dna"]
    problems = {p.name: p.problem for p in found.plugins if p.problem}
    assert problems == {"broken": "ImportError: no module named x"}
    with pytest.raises(InputError, match="unknown domain 'rna'.*Plugin skipped: 'broken' of didi-broken 1.0"):
        found.domain("rna", {})


def test_failed_plugin_that_was_asked_for_is_the_error() -> None:
    found = collect([Point("dna", ImportError("no module named x"))])  # type: ignore[list-item]
    with pytest.raises(InputError, match="domain 'dna' is not there.*cannot be loaded.*no module named x"):
        found.domain("dna", {})


def test_misspelt_hook_is_an_error_of_that_plugin() -> None:
    told = problem(module(didi_register_domain=lambda: {}))
    assert "unknown hook 'didi_register_domain'. Did you mean 'didi_register_domains'" in told


def iid_named(name: str) -> Iid:
    """The law ``iid`` under another name."""
    return type("Named", (Iid,), {"name": name})()


@dataclass(frozen=True)
class Needy:
    needs_scorer: ClassVar[bool] = False

    def sample(self, request: SampleRequest) -> None: ...


def of_objective(annotation: object, name: str = "power", default: object = 1.0, **members: object) -> types.ModuleType:
    """A plugin with an objective that has one field."""
    body = {"__annotations__": {name: annotation}, name: default, "prepare": lambda self, materials: None, **members}
    kept = {key: value for key, value in body.items() if value is not None}
    return module(didi_register_objectives=lambda: {"o": dataclass(frozen=True, kw_only=True)(_made(kept))})


def _made(body: dict[str, object]) -> type:
    return type("Odd", (ObjectiveSettings,), body)


def _refusing(settings: object) -> None:
    raise ValueError("power is odd")


@pytest.mark.parametrize(
    ("plugin", "told"),
    [
        (of_objective(float, prepare=None), "'o', which leaves out prepare: write it"),
        (of_objective("Nothing"), "'o', which has a field whose annotation cannot be read .name 'Nothing' is not def"),
        (of_objective(float, __post_init__=_refusing), "cannot be made from its defaults .ValueError: power is odd"),
        (module(didi_on_step=lambda steps: None), "didi_on_step asks for steps, which it is not given: its arguments"),
        (module(didi_register_domains=lambda: ["dna"]), r"_domains returned \['dna'\]: it must return a mapping"),
        (module(didi_register_domains=lambda: {"dna": 3}), "offers 'dna', which cannot be called: 3"),
        (module(didi_register_laws=lambda: {"l": Iid}), "offers 'l', which is a class: give an instance"),
        (module(didi_register_samplers=lambda: {"s": Needy}), "offers 's', which lacks stepwise, uses_law"),
        (module(didi_register_samplers=lambda: {"s": Needy()}), "is not a dataclass: give the class itself"),
        (module(didi_register_metrics=lambda: {"toy": []}), "it must be a mapping of metrics"),
        (module(didi_register_config_folders=lambda: [Path("nowhere")]), "names a folder that does not exist: nowhere"),
        (module(didi_register_config_folders=lambda: "configs"), "it must return a list of folders"),
        (module(didi_register_laws=lambda: 1 / 0), "ZeroDivisionError: division by zero"),
        (types.SimpleNamespace(DIDI_INTERFACE=3), "for plugin interface 3, .* has 2: upgrade didi-core"),
        (types.SimpleNamespace(DIDI_INTERFACE="two"), "for plugin interface 'two', .* has 2: upgrade didi-core"),
        (
            types.SimpleNamespace(DIDI_INTERFACE=1),
            "for plugin interface 1, .* has 2: install a newer version of the plugin. Its author: .*reward.*"
            "then set DIDI_INTERFACE = 2 .CHANGELOG.md",
        ),
        (types.SimpleNamespace(didi_on_step=print), "not marked: put @hookimpl.* names no DIDI_INTERFACE; .*reward"),
        (module(didi_register_samplers=lambda: {"s": Needy}), "lacks stepwise.* names no DIDI_INTERFACE; .*packages"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_plugin_is_its_problem_and_told_in_words(plugin: Any, told: str) -> None:
    assert re.search(told, problem(plugin)), problem(plugin)


def problem(plugin: Any) -> str:
    found = collect([Point("odd", plugin), Point("good", offers("dna"))])  # type: ignore[list-item]
    assert found.names("domains") == ["dna"]
    assert not found.offered_by("odd")
    return {p.name: p.problem for p in found.plugins}["odd"]


def test_what_a_plugin_lacks_is_told_wherever_its_name_is_asked_for() -> None:
    found = collect([Point("broken", ImportError("no module named x"), "didi-broken")])  # type: ignore[list-item]
    for kind in KINDS:
        with pytest.raises(InputError, match="'broken' of didi-broken 1.0: ImportError: no module named x"):
            found.catalogue(kind).find("other")


def test_metrics_of_a_plugin_come_after_those_of_the_domain() -> None:
    domain = plugins.registry().domain("toy", {})

    def having(name: str) -> plugins.Registry:
        metric = types.SimpleNamespace(name=name)
        offering = module(didi_register_metrics=lambda: {"toy": {name: lambda domain: metric}})
        return collect([Point("m", offering)])  # type: ignore[list-item]

    assert [m.name for m in having("extra").metrics(domain)] == [*(m.name for m in domain.metrics()), "extra"]
    found = having("nll")
    with pytest.raises(InputError, match="metric 'nll' of plugin 'm' of other 1.0 has a name that domain 'toy' uses"):
        found.metrics(domain)


def test_listener_that_fails_is_told_once_and_does_not_stop_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    def didi_on_step(step: int) -> None:
        raise ConnectionError("no network")

    listening = module(didi_on_step=lambda step: seen.append(step))
    points = [Point("bad", module(didi_on_step=didi_on_step)), Point("good", listening)]
    found = collect(points)  # type: ignore[arg-type]
    for step in (1, 2):
        found.notify("step", run_dir=None, step=step, scalars={})
    told = capsys.readouterr().err
    assert seen == [1, 2]
    assert told.count("plugin 'bad' of other 1.0 failed in didi_on_step and is not called again") == 1


def test_trace_shows_every_hook_call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DIDI_TRACE_PLUGINS", "1")
    points = [Point("t", module(didi_on_step=lambda step: None)), Point("b", ImportError("gone"))]
    found = collect(points)  # type: ignore[arg-type]
    found.notify("step", run_dir=None, step=7, scalars={})
    told = capsys.readouterr().err
    assert "plugin core: didi_register_laws()" in told
    assert "plugin t: didi_on_step(run_dir=None, step=7" in told
    assert "Traceback" in told, "and where the one that cannot be loaded fails"


def test_hooks_that_listen_are_called_with_what_they_ask_for() -> None:
    seen = []

    def didi_on_step(step: int, scalars: dict[str, float]) -> None:
        seen.append((step, scalars))

    found = collect([Point("tracker", module(didi_on_step=didi_on_step))])  # type: ignore[list-item]
    found.notify("step", run_dir=None, step=3, scalars={"loss": 1.0})
    assert seen == [(3, {"loss": 1.0})]


def test_every_hook_is_typed_and_documented() -> None:
    hooks = {name: value for name, value in vars(hookspecs).items() if name.startswith("didi_")}
    assert len(hooks) >= 6
    for name, hook in hooks.items():
        assert hook.__doc__, name
        assert "return" in hook.__annotations__, name


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes these the plugins of the installation, beside the real ones, not yet loaded."""
    real = [*importlib.metadata.entry_points(group=plugins.GROUP)]

    def install(*points: Point) -> None:
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [*real, *points])
        plugins.registry.cache_clear()

    yield install
    monkeypatch.undo()
    plugins.registry.cache_clear()
    plugins.registry()  # the catalogues forget what is no longer installed


def test_catalogues_know_names_of_plugins_without_a_call_of_the_registry(installed: Callable[..., None]) -> None:
    law = iid_named("mine")
    installed(Point("laws", module(didi_register_laws=lambda: {"mine": law})))
    assert plugins.registry.cache_info().currsize == 0
    assert LAWS.find("stratified").name == "stratified"
    assert plugins.registry.cache_info().currsize == 0, "what is there costs nothing"
    assert LAWS.find("mine") is law


def test_listing_a_catalogue_loads_the_plugins(installed: Callable[..., None]) -> None:
    installed(Point("laws", module(didi_register_laws=lambda: {"mine": iid_named("mine")})))
    assert "mine" in [*LAWS] and len(LAWS) == len([*LAWS])
    with pytest.raises(InputError, match="unknown unmasking law 'mien'. Did you mean 'mine'"):
        LAWS.find("mien")


def test_python_api_samples_with_the_law_of_a_plugin(installed: Callable[..., None]) -> None:
    import didi_core

    installed(Point("laws", module(didi_register_laws=lambda: {"mine": iid_named("mine")})))
    domain = ToyDomain()
    made = didi_core.sample(domain.teacher("bundled"), domain=domain, num=2, steps=3, law="mine")
    assert len(made.samples) == 2 and made.nfe.denoiser == 3


def test_plugin_that_asks_a_catalogue_while_it_is_loaded_does_not_wait_for_itself(
    installed: Callable[..., None],
) -> None:
    class Curious(Point):
        def load(self) -> Any:
            known = [*LAWS]
            return module(didi_register_laws=lambda: {"mine": iid_named(f"mine_after_{len(known)}")})

    installed(Curious("curious", None))
    assert LAWS.find("mine").name == f"mine_after_{len(BUILT_IN)}"


def test_names_that_are_no_longer_installed_leave_the_catalogues(installed: Callable[..., None]) -> None:
    installed(Point("laws", module(didi_register_laws=lambda: {"mine": iid_named("mine")})))
    assert "mine" in LAWS
    installed()
    plugins.registry()
    assert "mine" not in LAWS


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.catalogue is not None], ids=lambda k: k.name)
def test_every_kind_with_a_catalogue_offers_what_the_core_has(kind: Kind) -> None:
    assert kind.catalogue is not None
    mine = {name for name, offer in plugins.registry().offers[kind.name].items() if offer.plugin == plugins.CORE}
    assert mine and mine <= {*kind.catalogue}
    assert kind.catalogue.kind == kind.word


def test_every_kind_has_a_hook_of_its_own_and_every_hook_a_kind() -> None:
    assert sorted(kind.hook for kind in KINDS.values()) == sorted(h for h in HOOKS if h.startswith("didi_register_"))


def test_plugin_of_an_older_interface_that_imports_what_is_gone_says_so() -> None:
    class Old(Point):
        def load(self) -> Any:
            return importlib.import_module("didi_core.rewards")

    told = {p.name: p.problem for p in collect([Old("old", None)]).plugins}["old"]  # type: ignore[list-item]
    assert told.startswith("No module named 'didi_core.rewards'. This didi_core has plugin interface 2; a plugin of")


def test_hooks_cost_nothing_to_import() -> None:
    told = "import sys, didi_core.hookspecs; print([m for m in ('torch', 'numpy', 'hydra') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def configs(folder: Path, *names: str, text: str = "a: 1\n") -> types.ModuleType:
    for name in names:
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return module(didi_register_config_folders=lambda: [folder])


def test_objectives_of_plugins_are_configurations_by_name_and_two_of_one_name_are_refused(tmp_path: Path) -> None:
    first = configs(tmp_path / "a", "objective/mine", "objective/shared", "objective/didi")
    second = configs(tmp_path / "b", "objective/shared")
    found = collect([Point("a", first, "didi-a"), Point("b", second, "didi-b")])  # type: ignore[list-item]
    assert found.offered_by("a") == {"configs": ["objective/mine"]}
    told = found.conflicts["configs"]["objective/shared"]
    assert told.startswith("two plugins offer configuration 'objective/shared': 'a' of didi-a 1.0 and 'b' of didi-b")
    assert "'objective/didi' is the core's own and cannot be replaced" in found.plugins[1].health


def test_choosing_a_configuration_that_two_plugins_offer_names_both(
    installed: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from didi_core.cli import main

    twins = [Point(name, configs(tmp_path / name, "objective/shared"), f"didi-{name}") for name in ("a", "b")]
    installed(*twins, Point("c", ImportError("gone"), "didi-c"))
    assert main(["distill", "domain=toy", "objective=shared"]) == 2
    assert "'a' of didi-a 1.0 and 'b' of didi-b 1.0. Uninstall one of them." in capsys.readouterr().err
    assert main(["distill", "domain=toy", "objective=mine"]) == 2
    told = capsys.readouterr().err
    assert "unknown objective 'mine'" in told and "Plugin skipped: 'c' of didi-c 1.0: ImportError: gone." in told


@dataclass(frozen=True, kw_only=True)
class Mine(Nelbo):
    """An objective that brings no configuration."""

    strength: float = 2.0
    pair: tuple[int, int] = (1, 2)

    commands: ClassVar[tuple[str, ...]] = ("distill",)


def test_objective_and_domain_without_a_configuration_are_chosen_by_name(installed: Callable[..., None]) -> None:
    from didi_core.commands.compose import compose_jobs

    class Shapes(ToyDomain):
        def __init__(self, size: int = 3, *, path: str | None = None) -> None:
            super().__init__()

    both = module(didi_register_objectives=lambda: {"mine": Mine}, didi_register_domains=lambda: {"shapes": Shapes})
    installed(Point("mine", both))
    words = ["domain=shapes", "data.size=4", "objective=mine", "objective.strength=3"]
    made = compose_jobs("distill", words)[0].config
    assert made["domain"] == "shapes" and made["data"] == {"size": 4, "path": None}
    assert made["objective"] == {"kind": "mine", "name": "mine", "schedule": "log_linear", "weight_clip": 1000.0,
                                 "strength": 3.0, "pair": [1, 2]}  # fmt: skip
    with pytest.raises(InputError, match="unknown key 'objective.strenth'. Did you mean 'objective.strength'"):
        compose_jobs("distill", ["objective=mine", "objective.strenth=3"])


def test_file_of_a_plugin_comes_before_what_its_code_says(installed: Callable[..., None], tmp_path: Path) -> None:
    from didi_core.commands.compose import compose_jobs

    text = "# @package _global_\nobjective:\n  kind: mine\n  name: mine\n  strength: 7.0\n"
    made = configs(tmp_path, "objective/mine", text=text)
    made.didi_register_objectives = hookimpl(lambda: {"mine": Mine})  # type: ignore[attr-defined]
    installed(Point("mine", made))
    assert compose_jobs("distill", ["objective=mine"])[0].config["objective"]["strength"] == 7.0


def test_domain_of_a_plugin_names_its_default_objective(installed: Callable[..., None], tmp_path: Path) -> None:
    from didi_core.commands.compose import compose_jobs
    from didi_core.commands.explain import explained

    text = "# @package _global_\ndomain: {0}\ndefault_objective: {1}\ndata: {{}}\n"
    for name, objective in (("named", "mmd"), ("wrong", "dodo")):
        made = configs(tmp_path, f"domain/{name}", text=text.format(name, objective))
    three = dict.fromkeys(("named", "wrong", "bare"), ToyDomain)
    made.didi_register_domains = hookimpl(lambda: three)  # type: ignore[attr-defined]
    installed(Point("three", made))
    assert compose_jobs("distill", ["domain=named"])[0].config["objective"]["name"] == "mmd"
    assert compose_jobs("distill", ["domain=bare"])[0].config["objective"]["name"] == "few_calls"
    assert re.search(r"^  objective\.name=mmd\b", explained("distill", ["domain=named"]), re.M)
    with pytest.raises(InputError, match="objective=dodo: the default of domain=wrong: unknown objective 'dodo'"):
        compose_jobs("distill", ["domain=wrong"])


def test_file_of_a_config_folder_that_is_no_yaml_is_its_plugins_problem(tmp_path: Path) -> None:
    told = problem(configs(tmp_path, "conditioning/odd", text="a: [\n"))
    assert "didi_register_config_folders offers 'conditioning/odd', which is not YAML" in told


def test_plugin_that_leaves_while_it_is_imported_does_not_end_the_run() -> None:
    class Leaving(Point):
        def load(self) -> Any:
            raise SystemExit("no licence")

    found = collect([Leaving("paid", None, "didi-paid"), Point("good", offers("dna"))])  # type: ignore[list-item]
    assert found.names("domains") == ["dna"]
    assert {p.name: p.problem for p in found.plugins}["paid"] == "SystemExit: no licence"


def test_two_plugins_of_one_name_are_both_there_and_what_both_offer_is_refused() -> None:
    both = [Point("dna", offers("dna"), "didi-dna"), Point("dna", offers("dna"), "my-dna")]
    found = collect(both)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'dna' of didi-dna 1.0 and 'dna' of my-dna 1.0. Uninstall one of them"):
        found.domain("dna", {})
    other = collect([Point("dna", offers("dna"), "didi-dna"), Point("dna", offers("rna"), "my-dna")])  # type: ignore[list-item]
    assert other.names("domains") == ["dna", "rna"], "different things by plugins of one name are no conflict"
