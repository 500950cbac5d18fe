"""Relative paths that clients name: one way to read them, and one way to a file, which never leaves its folder."""

import re
from pathlib import Path

from shared.errors import PathRefused

_DRIVE = re.compile(r"[A-Za-z]:")
_REMEDY = "Name a path relative to the catalogue, such as images/1.jpg."


def normalise_relative(path: str) -> str:
    r"""Return the path with `/` between its parts and without `.` and empty parts.

    Backslashes count as separators, since catalogues and ZIPs from Windows hold them.

    Raises:
        PathRefused: if it is empty or absolute, or has a drive letter, a `..` part or a NUL.

    >>> normalise_relative(r".\images//1.jpg")
    'images/1.jpg'
    """
    slashed = path.replace("\\", "/")
    if "\0" in slashed or not _is_encodable(slashed):
        raise PathRefused(f"The path {_shown(path)} holds characters that no file name has. {_REMEDY}")
    parts = [part for part in slashed.split("/") if part not in ("", ".")]
    if slashed.startswith("/") or (parts and _DRIVE.match(parts[0])):
        raise PathRefused(f"The path {_shown(path)} is absolute. {_REMEDY}")
    if ".." in parts:
        raise PathRefused(f"The path {_shown(path)} leads out of its folder with '..'. {_REMEDY}")
    if not parts:
        raise PathRefused(f"The path {_shown(path)} names no file. {_REMEDY}")
    return "/".join(parts)


def resolve_below(root: Path, relative: str) -> Path:
    """Return the absolute path of `relative` below `root`, symbolic links followed. It need not exist.

    Raises:
        PathRefused: as `normalise_relative`, or if a symbolic link leads out of `root`.
    """
    name = normalise_relative(relative)
    try:
        folder = root.resolve()
        target = (folder / name).resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links that go round in a circle
        raise PathRefused(f"The path {_shown(relative)} can't be followed: {error}. {_REMEDY}") from None
    if not target.is_relative_to(folder):
        raise PathRefused(
            f"The path {_shown(relative)} leads out of its folder by a symbolic link. Put the file itself there."
        )
    return target


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(path: str) -> str:
    return repr(path if len(path) <= 200 else path[:200] + "…")
