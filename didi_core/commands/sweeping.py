"""The jobs of a sweep (``--multirun``): where each writes, and Hydra's launchers and sweepers, which run them.

A launcher gets only the words of each job, as one opaque override, and runs this program on them: no second grammar
reads a user's text. A sweeper such as Optuna's chooses values by itself, so it gets the words that it is to vary.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from didi_core.commands import Command
from didi_core.commands.compose import VERSION_BASE, Job, compose_jobs, sweep_values
from didi_core.commands.setting import parse
from didi_core.config import user_path
from didi_core.errors import DidiError, InputError, one_line, unknown, with_kind
from didi_core.storage.files import read_json

WORDS = "didi_words"  # key of the override that carries the words of a job
EXTRA = "pip install 'didi-core[sweep]'"
LAUNCHERS = ("basic", "joblib", "submitit_local", "submitit_slurm")
SWEEPERS = ("basic", "optuna")
TAKEN = ("hydra/launcher", "hydra/sweeper")  # and the keys below hydra.launcher. and hydra.sweeper.
SAMPLERS = "hydra/sweeper/sampler"
MEASURED = ("distill", "evaluate", "pretrain")  # commands whose report has a number to optimise
PLACES = ("run_dir", "out", "cache")  # keys that say where a job writes
CALLS = ("tag", "interval", "range", "choice", "shuffle", "int", "float")  # how Hydra spells what a sweeper varies

Main = Callable[[Sequence[str]], int]


@dataclass(frozen=True)
class Engines:
    """What a command line says of Hydra: names of launcher and sweeper, and all its words."""

    launcher: str = "basic"
    sweeper: str = "basic"
    words: tuple[str, ...] = ()

    @property
    def ours(self) -> bool:
        """Whether the jobs run here, one after the other."""
        return self.launcher == self.sweeper == "basic"


def engines(words: Sequence[str], sweep: bool) -> tuple[Engines, list[str]]:
    """Split words into those for Hydra's launcher and sweeper, and settings of the command.

    Raises:
        InputError: an engine that is unknown or not installed, or one without ``--multirun``.
    """
    own = [word for word in words if for_engines(word)]
    if not own:
        return Engines(), list(words)
    chosen = {key: value for key, _, value in (word.lstrip("+").partition("=") for word in own)}
    found = Engines(chosen.get(TAKEN[0], "basic"), chosen.get(TAKEN[1], "basic"), tuple(own))
    if not sweep:
        raise InputError(f"{own[0]} is for a sweep: add --multirun. A single run needs no launcher.")
    for name, known, kind in ((found.launcher, LAUNCHERS, "launcher"), (found.sweeper, SWEEPERS, "sweeper")):
        if name not in _installed(kind):
            if name in known:
                raise InputError(f"hydra/{kind}={name} is not installed here: {EXTRA}.")
            raise unknown(kind, name, sorted({*_installed(kind), *known}), f"hydra/{kind}")
        keys = (f"hydra.{kind}.", f"hydra/{kind}/")
        idle = next((word for word in own if name == "basic" and word.lstrip("+").startswith(keys)), None)
        if idle is not None:
            raise InputError(f"{idle} has no effect here: add hydra/{kind}={'|'.join(known[1:])}.")
    return found, [word for word in words if word not in own]


def for_engines(word: str) -> bool:
    """Whether a word is for a launcher or a sweeper."""
    key = word.lstrip("+").partition("=")[0]
    return key in (*TAKEN, SAMPLERS) or key.startswith(("hydra.launcher.", "hydra.sweeper."))


def _installed(kind: str) -> list[str]:
    """Names of the installed launchers or sweepers of Hydra."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()  # finds them, and lets them register
    return [name.removesuffix(".yaml") for name in ConfigStore.instance().list(f"hydra/{kind}") if "." in name]


def sweep_root(command: str, given: str | None) -> Path:
    """Folder of a sweep, in which each job has one of its own."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    return user_path(given) if given else Path("outputs") / command / f"multirun_{stamp}"


def place_of(command: Command, root: Path, number: int, config: Mapping[str, Any]) -> dict[str, str]:
    """The settings that give a job its place in the sweep: its directory, and the samples that all jobs share."""
    keys, own = command.settings.__dataclass_fields__, dict[str, str]()
    if "run_dir" in keys:
        own["run_dir"] = str(root / str(number))
    elif command.goes_on == "out" and config.get("out") is None:
        own["out"] = str(root / str(number))
    if "cache" in keys and config.get("cache") is None:
        own["cache"] = str(root / "evaluation")
    return own


def placed(words: Sequence[str], own: Mapping[str, str]) -> tuple[str, ...]:
    """The words of a job with its place instead of any other."""
    bare = [word for word in words if word.partition("=")[0] not in own]
    return (*bare, *(f"{key}={value}" for key, value in own.items()))


def check_places(jobs: Sequence[Job]) -> None:
    """Raise InputError where two jobs of a sweep would write to one place."""
    roots, outs = ([_resolved(job.config[key]) for job in jobs if job.config.get(key)] for key in ("run_dir", "out"))
    if len(set(roots)) > 1:
        raise InputError("run_dir names the folder of the whole sweep, with one folder a job in it: give one value.")
    twice = next((out for out in outs if outs.count(out) > 1), None)
    if twice is not None:
        raise InputError(f"several jobs would write out={twice}: leave it out, or give one for each job.")


def _resolved(given: object) -> str:
    return str(user_path(given).resolve())


def launched(command: Command, found: Engines, settings: Sequence[str], flags: Sequence[str], main: Main) -> None:
    """Run a sweep by Hydra's engines. A failed job does not stop the others.

    Args:
        flags: of the command line, for every job. main: runs a command line; returns its exit code.

    Raises:
        InputError, DidiError: jobs failed, or the launcher did.
    """
    if found.sweeper != "basic":
        _optimised(command, found, settings, flags, main)
        return
    jobs = compose_jobs(command.name, settings, sweep=True)
    check_places(jobs)
    root = sweep_root(command.name, jobs[0].config.get("run_dir")).resolve()
    places = [place_of(command, root, number, job.config) for number, job in enumerate(jobs)]
    words = [[*placed(job.words, own), *flags] for job, own in zip(jobs, places, strict=True)]

    def launch(launcher: Any) -> Any:
        for number, job in enumerate(words):
            print(f"job {number} of {len(words)}, by {found.launcher}: {' '.join(job)}", flush=True)
        return launcher.launch([[_packed(job)] for job in words], 0)

    returns = _with_hydra(found, root, Task(main, command.name, str(root)), launch)
    codes = [_code(made) for made in returns]
    if any(codes):
        kind = InputError if 2 in codes else DidiError
        raise kind(f"{sum(map(bool, codes))} of {len(codes)} jobs failed. Their output is above, or under {root}.")


def _optimised(command: Command, found: Engines, settings: Sequence[str], flags: Sequence[str], main: Main) -> None:
    """A sweep whose values a sweeper chooses by what the jobs before found."""
    if command.name not in MEASURED:
        raise InputError(
            f"hydra/sweeper={found.sweeper} needs a number to optimise, and {command.name} reports none. It works with "
            f"{', '.join(MEASURED)}."
        )
    varied = [word for word in settings if _varies(word)]
    fixed = [word for word in settings if word not in varied]
    if not varied and not any(word.lstrip("+").startswith("hydra.sweeper.params") for word in found.words):
        raise InputError(
            f"hydra/sweeper={found.sweeper} has nothing to vary: write key=a,b or key='interval(low,high)'."
        )
    (job,) = compose_jobs(command.name, fixed)
    _check_searched(command, job, varied)
    root = sweep_root(command.name, job.config.get("run_dir")).resolve()
    given = {key: job.config.get(key) for key in PLACES}
    task = Task(main, command.name, str(root), tuple([*fixed, *flags]), given, measured=True)
    arguments = [f"+{word.lstrip('+')}" for word in varied]
    _with_hydra(found, root, task, lambda sweeper: sweeper.sweep(arguments))
    print(f"the best values: {root / 'optimization_results.yaml'}", flush=True)


def _check_searched(command: Command, job: Job, varied: Sequence[str]) -> None:
    """Raise InputError where the jobs of a search would not each write to a folder of their own below the root."""
    placing = next((word for word in varied if parse(word).key in PLACES), None)
    if placing is not None:
        raise InputError(f"{placing} says where results go, and a search has one folder: give one value of run_dir.")
    if command.goes_on == "out" and job.config.get("out") is not None:
        raise InputError(
            f"out={job.config['out']} is one folder for all jobs of a search: leave it out. Job n writes into a folder "
            "n of the sweep's own."
        )


def _varies(word: str) -> bool:
    """Whether a setting has several values, or a range of them."""
    setting = parse(word)
    name, bracket, _ = str(setting.value).partition("(")
    return (bool(bracket) and name.strip() in CALLS) or len(sweep_values(setting)) > 1


@dataclass(frozen=True)
class Task:
    """What a launcher runs for each job, in whatever process: this program on the words of the job.

    fixed: words that all jobs of a sweeper share. given: their values of the keys that say where a job writes.
    measured: whether its number is returned, and not its exit code.
    """

    main: Main
    command: str
    root: str
    fixed: tuple[str, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)
    measured: bool = False

    def __call__(self, composed: Any) -> float:
        """Exit code of the job, or its number."""
        from hydra.core.hydra_config import HydraConfig

        del composed  # Hydra's, which holds nothing but the overrides
        about = HydraConfig.get()
        overrides, number = list(about.overrides.task), int(about.job.num)
        if not self.measured:
            return self.main([self.command, *_unpacked(overrides[0])])
        from didi_core.commands import find

        words = [*self.fixed, *(word.lstrip("+") for word in overrides)]
        own = place_of(find(self.command), Path(self.root), number, self.given)
        code = self.main([self.command, *placed(words, own)])
        if code:
            raise DidiError(f"job {number} failed with exit code {code}")
        return number_of(Path(self.root) / str(number))


def number_of(folder: Path) -> float:
    """What a sweeper optimises: the last validation loss, or the student's quality in the first row of its table.

    Raises:
        DidiError: the job has no such number.
    """
    for name in ("model", "judge"):
        if (folder / name / "card.json").is_file():
            return float([*read_json(folder / name / "card.json")["validation"].values()][-1])
    report = read_json(folder / "report.json") if (folder / "report.json").is_file() else {}
    for row in report.get("rows", ()):
        if row.get("model") == "student" and report["quality"] in row["values"]:
            return float(row["values"][report["quality"]]["value"])
    raise DidiError(
        f"{folder} has neither a validation loss nor a student's quality to optimise: set evaluate.enabled=true."
    )


def _packed(words: Sequence[str]) -> str:
    """An override that carries any words through Hydra's grammar unread."""
    text = base64.urlsafe_b64encode(json.dumps(list(words)).encode()).decode().rstrip("=")
    return f"+{WORDS}=w{text}"


def _unpacked(override: str) -> list[str]:
    text = override.partition("=w")[2]
    words: list[str] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return words


def _code(made: Any) -> int:
    """Exit code of a job; 1 for one that ended without."""
    try:
        return int(made.return_value)
    except Exception as error:  # noqa: BLE001  # whatever ended it, the other jobs count too
        print(f"a job ended without an exit code: {error}", flush=True)
        return 1


def _with_hydra(found: Engines, root: Path, task: Task, action: Callable[[Any], Any]) -> Any:
    """The result of an action with Hydra's launcher, or its sweeper where one is chosen.

    Raises:
        InputError: a key or a value of theirs is wrong, or they refuse to start a job, as where there is no Slurm.
        DidiError: the launcher failed later.
    """
    from hydra import initialize
    from hydra._internal.callbacks import Callbacks  # no public way to make what every launcher asks for
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.plugins import Plugins
    from hydra.errors import HydraException
    from hydra.types import HydraContext, RunMode
    from omegaconf import read_write
    from omegaconf.errors import OmegaConfBaseException

    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null"]
    place = "hydra.sweep.subdir=.hydra/${hydra.job.num}"
    GlobalHydra.instance().clear()
    try:
        with initialize(version_base=VERSION_BASE, config_path=None, job_name="didi"):
            loader = GlobalHydra.instance().config_loader()
            load = partial(loader.load_configuration, config_name=None, run_mode=RunMode.MULTIRUN)
            groups = [word for word in found.words if "/" in word.partition("=")[0]]
            _check_keys(found.words, load(overrides=[*quiet, *groups]).hydra)
            config = load(overrides=[*quiet, place, *found.words])
            with read_write(config.hydra):  # not as an override: no grammar reads a path
                config.hydra.sweep.dir = str(root).replace("${", r"\${")
            HydraConfig.instance().set_config(config)
            plugins, context = Plugins.instance(), HydraContext(loader, Callbacks(config))
            make = plugins.instantiate_launcher if found.sweeper == "basic" else plugins.instantiate_sweeper
            engine = make(hydra_context=context, task_function=task, config=config)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(f"{' '.join(found.words)}: {one_line(error.__cause__ or error, None)}") from None
    root.mkdir(parents=True, exist_ok=True)
    try:
        return action(engine)
    except (DidiError, KeyboardInterrupt):
        raise
    except Exception as error:
        what = f"{' '.join(found.words)}: {with_kind(error)}"
        if not any(one.name.isdecimal() for one in root.iterdir()):
            raise InputError(f"{what} No job was started.") from error
        raise DidiError(f"{what} The same command goes on: what is finished stays.") from error


def _check_keys(words: Sequence[str], engines: Mapping[str, Any]) -> None:
    """Raise InputError for a word of a key that the launcher or the sweeper does not have."""
    for word in words:
        kind, _, key = word.lstrip("+").partition("=")[0].removeprefix("hydra.").partition(".")
        name = key.partition(".")[0]
        if name and name not in engines[kind]:
            known = [one for one in engines[kind] if not one.startswith("_")]
            raise unknown("key", name, known, f"hydra.{kind}.{name}")
