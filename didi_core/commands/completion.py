"""Completion of commands, keys and choices of groups in the shell. The shell itself completes paths."""

from __future__ import annotations

from collections.abc import Sequence

from didi_core.commands import COMMANDS
from didi_core.errors import unknown

SCRIPTS = {
    "bash": """_didi() {
  local IFS=$'\\n' word
  word="${COMP_LINE:0:$COMP_POINT}"; word="${word##* }"
  COMPREPLY=($(didi --complete ${COMP_WORDS[1]} "$word" 2>/dev/null))
  if [[ "$word" == *=* ]]; then
    COMPREPLY=("${COMPREPLY[@]#*=}")
    [ ${#COMPREPLY[@]} = 0 ] && COMPREPLY=($(compgen -f -- "${word#*=}"))
  fi
  [ "${COMPREPLY[0]: -1}" = "=" ] && compopt -o nospace
}
complete -o default -F _didi didi""",
    "zsh": """#compdef didi
_didi() {
  local -a found
  found=(${(f)"$(didi --complete ${words[2]} "${words[CURRENT]}" 2>/dev/null)"})
  if (( ${#found} )); then compadd -S '' -- $found; else compset -P '*='; _files; fi
}
compdef _didi didi""",
    "fish": """complete -c didi -f -a '(didi --complete (commandline -opc)[2] (commandline -ct) 2>/dev/null)'
complete -c didi -F -n 'string match -q "*=*" (commandline -ct)'""",
}


def script(words: Sequence[str]) -> str:
    """The completion script of a shell: ``source <(didi --completion bash)``. Raises InputError for other shells."""
    shell = words[0] if words else ""
    if shell not in SCRIPTS:
        raise unknown("shell", shell, SCRIPTS, "--completion")
    return SCRIPTS[shell]


def candidates(words: Sequence[str]) -> list[str]:
    """Completions of the last word; the first word is the command."""
    if not words or (len(words) == 1 or words[0] == words[-1]) and words[-1] not in COMMANDS:
        typed = words[-1] if words else ""
        return [name for name in COMMANDS if name.startswith(typed)]
    command, typed = COMMANDS.get(words[0]), words[-1] if len(words) > 1 else ""
    if command is None or not command.configured:
        return []
    from didi_core.commands.explain import shown_config
    from didi_core.commands.groups import groups_of
    from didi_core.config import flatten

    groups = groups_of(command.name)
    key, equals, _ = typed.partition("=")
    if equals:
        return [word for word in (f"{key}={name}" for name in groups.get(key, [])) if word.startswith(typed)]
    config, _ = shown_config(command.name)
    keys = {*groups, *(k for k, v in flatten(config).items() if not isinstance(v, dict) or not v)}
    return sorted(f"{key}=" for key in keys if f"{key}=".startswith(typed))
