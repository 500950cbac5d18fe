"""CPU time and memory of process groups, and one server that runs alone."""

import os
import signal
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

from demo.process import POLL_SECONDS, Process, ProcessFailed

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 120
GRACE_SECONDS = 10
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(groups: Mapping[str, int]) -> dict[str, float]:
    """Return the CPU time that each process group has used so far, living processes only.

    Args:
        groups: name to process group id.
    """
    names = {group: name for name, group in groups.items()}
    seconds = dict.fromkeys(groups, 0.0)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it ended meanwhile
        fields = stat.rpartition(")")[2].split()  # state, ppid, pgrp, …; utime and stime are the 12th and 13th
        if (group := int(fields[2])) in names:
            seconds[names[group]] += (int(fields[11]) + int(fields[12])) / _TICKS
    return seconds


def peak_mib(pid: int) -> float:
    """Return the largest resident memory that a process has had (VmHWM), in MiB."""
    for line in Path("/proc", str(pid), "status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{pid}/status has no VmHWM")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return our own environment, this Python's programs first, with variables on top."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **(extra or {})}


@contextmanager
def stopped(groups: Collection[int]) -> Iterator[None]:
    """Keep process groups from running while the block lasts: even idle, some servers look for work all the time."""
    for group in groups:
        os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        for group in groups:
            os.killpg(group, signal.SIGCONT)


@contextmanager
def running(name: str, command: Sequence[str], logs: Path, extra: Mapping[str, str] | None = None) -> Iterator[Process]:
    """Run a command, in a session of its own, for as long as the block lasts."""
    logs.mkdir(parents=True, exist_ok=True)
    process = Process(name, command, folder=ROOT, environment=environment(extra), log=logs / f"{name}.log")
    try:
        process.start()
        yield process
    finally:
        process.stop(GRACE_SECONDS)


def wait_until_answers(url: str, processes: Sequence[Process]) -> None:
    """Wait until a GET is answered with 200.

    Raises:
        ProcessFailed: if a process ends meanwhile, or the time is over.
    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if requests.get(url, timeout=5).status_code == 200:
                return
        except requests.RequestException:
            pass  # it doesn't listen yet
        for process in processes:
            if not process.is_running():
                raise ProcessFailed(f"{process.name} ended with status {process.exit_status()}", process.log)
        if time.monotonic() > deadline:
            raise ProcessFailed(f"{url} did not answer within {START_SECONDS} s", processes[0].log)
        time.sleep(POLL_SECONDS)
