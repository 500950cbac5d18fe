"""Reads a Procfile: `name: command` lines."""

import re
import shlex
from pathlib import Path

RELEASE = "release"  # runs once, before the others
_LINE = re.compile(r"([A-Za-z0-9_-]+):\s*(\S.*)")


def read_procfile(file: Path) -> dict[str, list[str]]:
    """Return the command of each process, as a list of arguments, in the order of the file.

    Raises:
        ValueError: naming the line that is neither a process nor a comment, or that names a process again.
    """
    commands: dict[str, list[str]] = {}
    for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        line = text.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or match[1] in commands:
            raise ValueError(f"{file}:{number}: not a `name: command` line of a new process: {line}")
        commands[match[1]] = shlex.split(match[2])
    return commands
