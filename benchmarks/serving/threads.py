"""CPU time of threads by what they do, as the system counts it: native code is in it, and nobody looks on."""

import json
import os
import re
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path

from benchmarks.serving.processes import environment

DUMP_SECONDS = 30
NATIVE = "threads of native code (runtime, FAISS)"
UPKEEP = "upkeep"
NETWORK = "threads that run the network"
LOOP = "main thread (Celery's or gunicorn's loop)"
# By the names of Python's threads; a thread that Python doesn't know was started by a library.
ROLES = (
    (re.compile(r"embed-\d+$"), NETWORK),
    (re.compile(r"ThreadPoolExecutor-"), "threads that take jobs or requests"),
    (re.compile(r"MainThread$"), LOOP),
    (re.compile(r"job-ends$"), "thread that hears of ends of jobs"),
)
_TICKS = os.sysconf("SC_CLK_TCK")


def roles(pids: Collection[int]) -> dict[int, str]:
    """Return what each thread of some processes does, by its id; needs py-spy, which stops them for a moment.

    Raises:
        OSError: if py-spy can't be run.
        subprocess.SubprocessError: if it may not look into a process.
    """
    found = {}
    for pid in pids:
        command = ["py-spy", "dump", "--json", "--pid", str(pid)]
        done = subprocess.run(command, capture_output=True, check=True, timeout=DUMP_SECONDS, env=environment())
        for thread in json.loads(done.stdout):
            name = thread["thread_name"] or ""
            found[thread["os_thread_id"]] = next((role for pattern, role in ROLES if pattern.match(name)), UPKEEP)
    return found


def members(group: int) -> list[int]:
    """Return the ids of the living processes of a process group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it ended meanwhile
        if int(stat.rpartition(")")[2].split()[2]) == group:
            found.append(int(folder.name))
    return found


def cpu_seconds_of_threads(pids: Collection[int]) -> dict[int, float]:
    """Return the CPU time that each thread of some processes has used so far, by its id."""
    seconds = {}
    for pid in pids:
        for folder in Path("/proc", str(pid), "task").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            seconds[int(folder.name)] = (int(fields[11]) + int(fields[12])) / _TICKS
    return seconds


def by_role(before: Mapping[int, float], after: Mapping[int, float], known: Mapping[int, str]) -> dict[str, float]:
    """Return the seconds between two looks by what the threads do, the longest first.

    >>> by_role({1: 5.0}, {1: 6.0, 2: 0.5}, {1: "serves"})
    {'serves': 1.0, 'threads of native code (runtime, FAISS)': 0.5}
    """
    used: dict[str, float] = {}
    for thread, seconds in after.items():
        role = known.get(thread, NATIVE)
        used[role] = used.get(role, 0.0) + seconds - before.get(thread, 0.0)
    longest_first = sorted(used.items(), key=lambda pair: -pair[1])
    return {role: spent for role, spent in longest_first if spent > 0}
