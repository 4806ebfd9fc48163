"""The command line: the first word is the command, the rest are ``key=value`` settings.

Exit codes: 0 everything asked for was done; 1 the run failed; 2 input or configuration is wrong; 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib.metadata
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from didi_core.commands import COMMANDS, Command, find
from didi_core.errors import DidiError, InputError, first_line, warn
from didi_core.processes import current, first_failure, joined, launcher
from didi_core.storage.run_dir import stopped_in

if TYPE_CHECKING:
    from didi_core.commands.compose import Job

PROGRAM, MODULE = "didi", "python -m didi_core"
FAILED, WRONG, INTERRUPTED = 1, 2, 130
HELP, SWEEP, SHOW = ("--help", "-h"), ("--multirun", "-m"), ("--cfg", "-c")
RESOLVE = "--resolve"
CONFIG_DIR, CONFIG_NAME = "--config-dir", "--config-name"
VALUED = (*SHOW, CONFIG_DIR, CONFIG_NAME)  # flags that are followed by a value
FLAGS = "--help, --cfg job, --multirun, --config-dir FOLDER, --config-name NAME"
UNUSABLE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.EFBIG: "the file would be larger than the system allows (ulimit -f)",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "its links go round in a circle",
    errno.ENOTDIR: "a part of it is a file where a folder should be",
    errno.EISDIR: "it is a folder where a file should be",
}


def main(argv: Sequence[str]) -> int:
    """Run a command line (without the program's name); returns the exit code."""
    words = list(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # letters that the terminal lacks are escaped
    if not words or words[0] in (*HELP, "help"):
        print(overview())
        return 0
    if words[0] in ("--version", "-V"):
        print(f"{PROGRAM} {importlib.metadata.version('didi-core')}")
        return 0
    if words[0] in ("--completion", "--complete"):
        return guarded(lambda: _complete(words), words)
    return guarded(lambda: _together(words), words)


def _complete(words: Sequence[str]) -> None:
    from didi_core.commands.completion import candidates, script

    print(script(words[1:]) if words[0] == "--completion" else "\n".join(candidates(words[1:])))


def _together(words: Sequence[str]) -> None:
    """Run a command line, together with the other processes if torchrun started several."""
    with joined() as processes:
        if processes.size > 1:
            check_parallel(words)
        _dispatch(words)


def check_parallel(words: Sequence[str]) -> None:
    """Raise InputError where torchrun started several processes of a command that runs in one."""
    if not find(words[0]).parallel or any(word in SWEEP for word in words):
        named = f"{words[0]} --multirun" if find(words[0]).parallel else words[0]
        parallel = ", ".join(command.name for command in COMMANDS.values() if command.parallel)
        raise InputError(
            f"{named} runs in one process: start it with {PROGRAM} {words[0]} ... instead of torchrun. "
            f"Several processes are for {parallel}."
        )


def overview() -> str:
    """The help: one line per command, and where to find more."""
    width = max(map(len, COMMANDS))
    lines = [f"usage: {PROGRAM} COMMAND [key=value ...]", "", "commands"]
    lines += [f"  {command.name:<{width}}  {command.about}" for command in COMMANDS.values()]
    lines += ["", "examples"]
    lines += [
        f"  {PROGRAM} {command.name} {command.example}".rstrip() for command in COMMANDS.values() if command.example
    ]
    lines += [
        "",
        f"{PROGRAM} COMMAND --help              its settings with their values, and the choices of each group",
        f"{PROGRAM} COMMAND ... --cfg job       the configuration that would run",
        f"{PROGRAM} COMMAND ... --multirun      one run for each combination of key=a,b",
        f"{PROGRAM} COMMAND ... --config-dir FOLDER   configurations of your own beside those of the project",
        f"{PROGRAM} --completion bash|zsh|fish  a script that completes commands, keys and choices",
        f"{PROGRAM} --version",
        "",
        f"A value is what follows the first '=', up to the end of the word: quote it for the shell only. {MODULE} is "
        "the same program.",
    ]
    return "\n".join(lines)


def _dispatch(words: Sequence[str]) -> None:
    command, rest = find(words[0]), list(words[1:])
    if not command.configured:
        if any(word in HELP for word in rest):
            print(f"usage: {PROGRAM} {command.name} {command.example}\n\n{command.about}")
        else:
            command.run(rest)
        return
    flags, settings, own = _split(rest)
    from didi_core.commands.folders import flags_again, use_own

    use_own(own.get(CONFIG_DIR), own.get(CONFIG_NAME))
    if any(flag in HELP for flag in flags):
        from didi_core.commands.explain import explained

        print(f"usage: {PROGRAM} {command.name} [key=value ...]\n\n{explained(command.name, settings)}")
        return
    from didi_core.commands.compose import compose_jobs
    from didi_core.commands.sweeping import engines, launched

    sweep, show = (any(flag in which for flag in flags) for which in (SWEEP, SHOW))
    found, settings = engines(command.spelled(settings), sweep)
    if not found.ours and not show:
        launched(command, found, settings, flags_again(), main)
        return
    jobs = compose_jobs(command.name, settings, sweep)
    if show:
        print("\n---\n".join(_as_yaml(job) for job in jobs))
    elif sweep:
        _run_many(command, jobs)
    else:
        _run_one(command, jobs[0], (command.name, *jobs[0].words, *flags_again()))


def _split(words: Sequence[str]) -> tuple[list[str], list[str], dict[str, str]]:
    """Split words into flags, settings, and the flags that have a value. Raises InputError for an unknown flag."""
    flags, settings, own, waiting = [], [], dict[str, str](), ""
    for word in words:
        name, equals, value = word.partition("=")
        if waiting or (name in VALUED and equals):
            own[waiting or name] = word if waiting else value
            waiting = ""
        elif word in VALUED:
            waiting = word
        elif word.startswith("-"):
            if word not in (*HELP, *SWEEP, RESOLVE):
                raise InputError(f"unknown flag {word}. Settings are written key=value; the flags are {FLAGS}.")
            flags.append(word)
        else:
            settings.append(word)
    if waiting:
        raise InputError(f"{waiting} is given nothing: the flags are {FLAGS}.")
    for flag in SHOW:
        if flag in own:
            if own.pop(flag) != "job":
                raise InputError(f"{flag} shows the configuration of the command: write --cfg job.")
            flags.append(flag)
    if RESOLVE in flags and not any(flag in SHOW for flag in flags):
        raise InputError(f"{RESOLVE} belongs to --cfg job, which shows the configuration, and does nothing without it.")
    return flags, settings, own


def _as_yaml(job: Job) -> str:
    import yaml

    text: str = yaml.safe_dump(job.config, sort_keys=False, allow_unicode=True)
    return f"{f'# {job.note}{chr(10)}' if job.note else ''}{text.rstrip()}"


def _run_one(command: Command, job: Job, command_line: tuple[str, ...]) -> None:
    from didi_core.config import build

    if job.note and current().first:
        print(job.note, flush=True)
    command.run(build(command.settings, job.config), job.config, command_line)


def _run_many(command: Command, jobs: Sequence[Job]) -> None:
    """Run jobs one after another. A failed job does not stop the others; the highest exit code is kept."""
    from dataclasses import replace

    from didi_core.commands.folders import flags_again
    from didi_core.commands.sweeping import check_places, place_of, placed, sweep_root

    check_places(jobs)
    root, codes = sweep_root(command.name, jobs[0].config.get("run_dir")), list[int]()
    for number, job in enumerate(jobs):
        own = place_of(command, root, number, job.config)
        made = replace(job, words=placed(job.words, own), config={**job.config, **own})
        print(f"job {number} of {len(jobs)}: {shlex.join(job.words)}", flush=True)
        words = (command.name, *made.words, *flags_again())
        codes.append(guarded(partial(_run_one, command, made, words), words))
        if codes[-1] == INTERRUPTED:
            raise KeyboardInterrupt
    if any(codes):
        kind = InputError if WRONG in codes else DidiError
        raise kind(f"{sum(map(bool, codes))} of {len(codes)} jobs failed.")


def guarded(action: Callable[[], None], words: Sequence[str]) -> int:
    """Run an action and turn any exception into a message and an exit code."""
    try:
        action()
    except DidiError as error:
        return _fail(error.exit_code, str(error))
    except KeyboardInterrupt as error:
        return _fail(INTERRUPTED, f"interrupted. What was written is whole. {_resume_hint(words, stopped_in(error))}")
    except BrokenPipeError:
        return FAILED
    except Exception as error:  # the last resort: an unexpected failure keeps its traceback and gets an exit code
        place = stopped_in(error)
        trouble = disk_trouble(error, place)
        if trouble:
            return _fail(WRONG, f"{trouble} {_resume_hint(words, place)}")
        lacking = memory_trouble(error)
        if lacking:
            return _fail(FAILED, f"{lacking} {_resume_hint(words, place)}")
        reports, code = first_failure(FAILED)
        if reports:
            traceback.print_exc()
            kept = _keep_traceback(place)
            _print_error(f"unexpected {type(error).__name__}: {error}. {kept}{_resume_hint(words, place)}")
        return code
    return 0


def _fail(code: int, text: str) -> int:
    """Print an error once for all processes. Returns the exit code of the first process that failed."""
    reports, code = first_failure(code)
    if reports:
        _print_error(text.rstrip())
    return code


def disk_trouble(error: BaseException, place: Path | None = None) -> str | None:
    """A message for a path that cannot be written or read; None for any other error."""
    seen: BaseException | None = error
    while seen is not None:
        number = seen.errno if isinstance(seen, OSError) else _number_in_words(seen)
        if number in UNUSABLE:
            named = getattr(seen, "filename", None) or getattr(seen, "filename2", None) or place or Path.cwd()
            shown = os.fsdecode(named) if isinstance(named, str | bytes | Path) else str(named)
            shown = shown if len(shown) <= 120 else f"{shown[:60]}...{shown[-40:]}"
            full = number in (errno.ENOSPC, errno.EDQUOT)
            todo = "Make room, or name another place" if full else "Name another place"
            return f"{shown}: {UNUSABLE[number]}. What was written before is whole. {todo}."
        seen = seen.__cause__ or seen.__context__
    return None


def memory_trouble(error: BaseException) -> str | None:
    """A message for memory that ran out outside a step of training, which has its own; None for any other error."""
    from didi_core.device import out_of_memory

    if not out_of_memory(error):
        return None
    return (
        f"out of memory: {first_line(error)} What was written before is whole. Take fewer sequences at once "
        "(batch_size), shorter ones or a smaller model."
    )


def _number_in_words(error: BaseException) -> int | None:
    """The error number that safetensors and torch put into their messages."""
    text = str(error)
    for number in UNUSABLE:
        if f"os error {number})" in text or (isinstance(error, RuntimeError) and os.strerror(number) in text):
            return number
    return None


def _keep_traceback(place: Path | None) -> str:
    """Write the traceback into the run directory, if there is one that can be written."""
    if place is None:
        return ""
    path = place / "error.log"
    try:
        path.write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
    except OSError:
        return ""
    return f"The traceback is in {path}. "


def _resume_hint(words: Sequence[str], place: Path | None) -> str:
    """The command line that continues where this one stopped, quoted for the shell."""
    key = COMMANDS[words[0]].goes_on if words and words[0] in COMMANDS else ""
    if place is None or not key:
        return ""
    from didi_core.commands.grammar import written

    rest = [word for word in words if word.partition("=")[0] != key]
    program = PROGRAM if current().size == 1 else launcher(MODULE)
    return f"To go on: {program} {shlex.join([*rest, f'{key}={written(place)}'])}"


def _print_error(text: str) -> None:
    """Print an error after what was printed before it."""
    sys.stdout.flush()
    warn(text)
