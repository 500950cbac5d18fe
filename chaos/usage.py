"""Memory and open files of process groups, children included."""

from collections.abc import Iterator, Mapping
from pathlib import Path


def _members(groups: Mapping[str, int]) -> Iterator[tuple[str, Path]]:
    """Yield the folder in /proc of each living process, with the name of its group."""
    names = {group: name for name, group in groups.items()}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            group = int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[2])
        except OSError:
            continue  # it ended meanwhile
        if group in names:
            yield names[group], folder


def resident_mib(groups: Mapping[str, int]) -> dict[str, float]:
    """Return the resident memory of each group in MiB, what its processes share counted for each of them."""
    mib = dict.fromkeys(groups, 0.0)
    for name, folder in _members(groups):
        try:
            lines = (folder / "status").read_text().splitlines()
        except OSError:
            continue
        mib[name] += sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))
    return mib


def open_files(groups: Mapping[str, int]) -> dict[str, int]:
    """Return how many files, sockets included, each group has open."""
    files = dict.fromkeys(groups, 0)
    for name, folder in _members(groups):
        try:
            files[name] += sum(1 for _ in (folder / "fd").iterdir())
        except OSError:
            continue
    return files
