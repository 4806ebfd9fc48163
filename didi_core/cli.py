"""The command line: the first word is the command, the rest are ``key=value`` settings.

Exit codes: 0 everything asked for was done; 1 the run failed; 2 input or configuration is wrong; 130 interrupted.
"""

from __future__ import annotations

import errno
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from didi_core.commands import COMMANDS, Command, find
from didi_core.errors import DidiError, InputError
from didi_core.processes import joined, launcher, spokesman
from didi_core.storage.run_dir import RunDirectory

PROGRAM = "python -m didi_core"
FAILED, WRONG, INTERRUPTED = 1, 2, 130
# Flags that Hydra answers by itself, without a run.
SHOWING = ("--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i", "--resolve", "-r", "--package", "-p")
SWEEPING = ("--multirun", "-m")
UNWRITABLE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
}


def main(argv: Sequence[str]) -> int:
    """Run a command line (without the program's name); returns the exit code."""
    words = list(argv)
    if not words or words[0] in ("--help", "-h", "help"):
        print(overview())
        return 0
    return guarded(lambda: _together(words), words)


def _together(words: Sequence[str]) -> None:
    """Run a command line, in step with the other processes where torchrun started several."""
    with joined() as processes:
        if processes.size > 1:
            check_parallel(words)
        _dispatch(words)


def check_parallel(words: Sequence[str]) -> None:
    """Refuse several processes of what runs in one."""
    if not find(words[0]).parallel or any(word in SWEEPING for word in words):
        told = f"{words[0]} --multirun" if find(words[0]).parallel else words[0]
        parallel = ", ".join(command.name for command in COMMANDS.values() if command.parallel)
        raise InputError(
            f"{told} runs in one process: start it with {PROGRAM} {words[0]} ... instead of torchrun. "
            f"Several processes are for {parallel}."
        )


def overview() -> str:
    """The help: commands with a line each, and where to read on."""
    width = max(map(len, COMMANDS))
    lines = [f"usage: {PROGRAM} COMMAND [key=value ...]", "", "commands"]
    lines += [f"  {command.name:<{width}}  {command.about}" for command in COMMANDS.values()]
    lines += ["", "examples"]
    lines += [
        f"  {PROGRAM} {command.name} {command.example}".rstrip() for command in COMMANDS.values() if command.example
    ]
    lines += [
        "",
        f"{PROGRAM} COMMAND --help       its settings with their values, and the choices of each group",
        f"{PROGRAM} COMMAND ... --cfg job        the configuration that would run",
        f"{PROGRAM} COMMAND ... --multirun       one run for each combination of key=a,b",
    ]
    return "\n".join(lines)


def _dispatch(words: Sequence[str]) -> None:
    command, rest = find(words[0]), list(words[1:])
    if not command.configured:
        if any(word in ("--help", "-h") for word in rest):
            print(f"usage: {PROGRAM} {command.name} {command.example}\n\n{command.about}")
        else:
            command.run(rest)
        return
    flags, overrides = _split(command.spelled(rest))
    if any(flag in ("--help", "-h") for flag in flags):
        from didi_core.commands.compose import explained

        print(f"{PROGRAM} {command.name}: {command.about}\n\n{explained(command.name)}\n")
    if any(flag.split("=")[0] in SHOWING for flag in flags):
        _hydra(command, flags, overrides, lambda: None)
        return
    from didi_core.commands.compose import compose_jobs

    sweep = any(flag in SWEEPING for flag in flags)
    others = [flag for flag in flags if flag not in SWEEPING]
    if others:
        raise InputError(
            f"unknown flag {others[0]}. Settings are written key=value; see {PROGRAM} {command.name} --help."
        )
    jobs = compose_jobs(command.name, overrides, sweep)
    if sweep:
        _run_many(command, overrides)
    else:
        _run_one(command, jobs[0].config, tuple(words))


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags (with the word that belongs to them) and overrides; Hydra wants them apart."""
    flags, overrides, waiting = [], [], False
    for word in words:
        if waiting or (word.startswith("-") and "=" not in word.split("-")[0]):
            flags.append(word)
            waiting = not waiting and word in ("--cfg", "-c", "--info", "-i", "--package", "-p")
        else:
            overrides.append(word)
    return flags, overrides


def _run_one(command: Command, config: dict, command_line: tuple[str, ...]) -> None:
    from didi_core.config import build

    settings = build(command.settings, config)
    command.run(settings, config, command_line)


def _run_many(command: Command, overrides: Sequence[str]) -> None:
    """Hydra's multirun. A job that fails does not stop the others; the worst exit code is kept."""
    codes: list[int] = []
    given = [word.partition("=")[2] for word in overrides if word.startswith("run_dir=")]
    root = (
        Path(given[-1]) if given else Path("outputs") / command.name / f"multirun_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    )

    def job() -> None:
        from hydra.core.hydra_config import HydraConfig

        from didi_core.commands.compose import compose_jobs

        composed = HydraConfig.get()
        own = [word for word in composed.overrides.task if not word.startswith("run_dir=")]
        own += [f"run_dir={root / str(composed.job.num)}"] if _takes(command, "run_dir") else []
        if _takes(command, "cache") and not any(word.startswith("cache=") for word in own):
            own.append(f"cache={root / 'evaluation'}")
        words = (command.name, *own)
        codes.append(guarded(lambda: _run_one(command, compose_jobs(command.name, own)[0].config, words), words))
        if codes[-1] == INTERRUPTED:
            raise KeyboardInterrupt

    _hydra(command, ["--multirun"], [*overrides, f"hydra.sweep.dir={root}"], job)
    if any(codes):
        raise (
            DidiError(f"{sum(map(bool, codes))} of {len(codes)} jobs failed.")
            if WRONG not in codes
            else InputError(f"{sum(map(bool, codes))} of {len(codes)} jobs failed.")
        )


def _takes(command: Command, key: str) -> bool:
    return key in command.settings.__dataclass_fields__


def _hydra(command: Command, flags: Sequence[str], overrides: Sequence[str], job: Callable[[], None]) -> None:
    """Hand over to ``hydra.main``, with its own output folders and logs switched off."""
    import hydra

    from didi_core.commands.compose import VERSION_BASE, use_plugin_folders, with_wishes
    from didi_core.plugins.builtin import config_folder

    use_plugin_folders()
    quiet = ["hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.run.dir=."]
    quiet.append(f"hydra.help.app_name='{PROGRAM} {command.name}'")
    before = sys.argv
    sys.argv = [f"{PROGRAM} {command.name}", *flags, *with_wishes(command.name, overrides), *quiet]
    try:
        hydra.main(version_base=VERSION_BASE, config_path=str(config_folder()), config_name=command.name)(
            lambda _: job()
        )()
    finally:
        sys.argv = before


def guarded(action: Callable[[], None], words: Sequence[str]) -> int:
    """Run something and turn whatever it raises into a message and an exit code."""
    RunDirectory.current = None
    try:
        action()
    except DidiError as error:
        return _fail(error.exit_code, str(error))
    except KeyboardInterrupt:
        return _fail(INTERRUPTED, f"interrupted. What was written is whole. {_resume_hint(words)}")
    except BrokenPipeError:
        return FAILED
    except Exception as error:  # the last door: an unexpected failure keeps its traceback and gets an exit code
        trouble = disk_trouble(error)
        if trouble:
            return _fail(WRONG, f"{trouble} {_resume_hint(words)}")
        speaks, code = spokesman(FAILED)
        if speaks:
            traceback.print_exc()
            _say(f"unexpected {type(error).__name__}: {error}. {_keep_traceback()}{_resume_hint(words)}")
        return code
    return 0


def _fail(code: int, text: str) -> int:
    """Tell what went wrong, once for all processes. Returns the exit code, of the first that failed."""
    speaks, code = spokesman(code)
    if speaks:
        _say(text)
    return code


def disk_trouble(error: BaseException) -> str | None:
    """A message for a place that cannot be written (or read); None for any other error."""
    seen: BaseException | None = error
    while seen is not None:
        number = seen.errno if isinstance(seen, OSError) else _told_number(seen)
        if number in UNWRITABLE:
            place = getattr(seen, "filename", None) or getattr(seen, "filename2", None) or _place()
            return f"{place}: {UNWRITABLE[number]}. What was written before is whole. Make room, or name another place."
        seen = seen.__cause__ or seen.__context__
    return None


def _told_number(error: BaseException) -> int | None:
    """The error number that safetensors gives in words."""
    for number in UNWRITABLE:
        if f"os error {number})" in str(error):
            return number
    return None


def _place() -> str:
    return str(RunDirectory.current or Path.cwd())


def _keep_traceback() -> str:
    """Write the traceback into the run directory, where there is one and it can be written."""
    if RunDirectory.current is None:
        return ""
    path = RunDirectory.current / "error.log"
    try:
        path.write_text(traceback.format_exc())
    except OSError:
        return ""
    return f"The traceback is in {path}. "


def _resume_hint(words: Sequence[str]) -> str:
    """The command line that goes on where this one stopped."""
    if RunDirectory.current is None or words[0] not in ("distill", "pretrain"):
        return ""
    rest = [word for word in words if not word.startswith("run_dir=")]
    return f"To go on: {launcher(PROGRAM)} {shlex.join([*rest, f'run_dir={RunDirectory.current}'])}"


def _say(text: str) -> None:
    sys.stdout.flush()
    print(f"didi_core: {text}", file=sys.stderr, flush=True)
