"""One process that we started: its own session and process group, its own log."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

POLL_SECONDS = 0.05
TAIL_LINES = 25


class ProcessFailed(RuntimeError):
    """A process died, or was not ready in time; the message holds the end of its log."""

    def __init__(self, reason: str, log: Path) -> None:
        super().__init__(f"{reason}\nIts log, {log}, ends with:\n{_tail(log)}")
        self.log = log


class Process:
    """A command that can be started, signalled and stopped, again and again.

    It never gets the terminal's Ctrl-C: it is in a session of its own, and who started it decides when it ends.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, folder: Path, environment: Mapping[str, str], log: Path
    ) -> None:
        """Describe the process without starting it.

        Args:
            name: how people call it.
            command: program and arguments; no shell reads them.
            folder: where it runs.
            environment: all of its environment.
            log: file that gets its stdout and stderr; emptied now.
        """
        self.name = name
        self.log = log
        self._command = [*_ends_with_parent(), *command]
        self._folder = folder
        self._environment = dict(environment)
        self._popen: subprocess.Popen[bytes] | None = None
        log.write_bytes(b"")

    def start(self, pass_fds: Sequence[int] = ()) -> None:
        """Start the process.

        Raises:
            ProcessFailed: if its program can't be run.
        """
        with self.log.open("ab") as log:
            try:
                self._popen = subprocess.Popen(
                    self._command,
                    cwd=self._folder,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=pass_fds,
                )
            except OSError as error:
                raise ProcessFailed(f"{self.name} can't be started: {error}", self.log) from error

    @property
    def pid(self) -> int:
        """Id of the process, which is its process group's too."""
        if self._popen is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._popen.pid

    def exit_status(self) -> int | None:
        """Return how the process ended (negative: by that signal); None while it runs or before it was started."""
        if self._popen is None or self._popen.returncode is not None:
            return self._popen.returncode if self._popen else None
        status = self._popen.poll()
        if status is not None:
            # At once, while the group's number can't yet belong to anybody else: what a dead parent
            # left behind would work on without anyone to stop it.
            self._kill_group()
        return status

    def is_running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._popen is not None and self.exit_status() is None

    def send(self, signum: int) -> None:
        """Send a signal: SIGKILL to the whole process group, any other to the process, which tells its children."""
        if not self.is_running():
            return
        if signum == signal.SIGKILL:
            self._kill_group()
        else:
            os.kill(self.pid, signum)

    def wait(self, deadline: float) -> int | None:
        """Wait until the process has ended or `time.monotonic()` reaches the deadline; return its exit status."""
        while self.is_running() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return self.exit_status()

    def stop(self, grace_seconds: float) -> None:
        """End the process: SIGTERM, then SIGKILL for its whole group when the grace is over."""
        stop_all([self], grace_seconds)

    def _kill_group(self) -> None:
        # Nobody may be left; macOS says PermissionError of a group of zombies.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def stop_all(processes: Sequence[Process], grace_seconds: float) -> None:
    """End processes side by side, so that the slowest alone decides how long it takes.

    A second Ctrl-C ends the grace, not the care: every group is killed before the interrupt goes on.
    """
    try:
        for process in processes:
            process.send(signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        for process in processes:
            process.wait(deadline)
    finally:
        for process in processes:
            process.send(signal.SIGKILL)
        for process in processes:
            process.wait(time.monotonic() + grace_seconds)


@cache
def _ends_with_parent() -> tuple[str, ...]:
    """Return a prefix that ends a process when its parent was killed, where the system has one (Linux)."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ()
    prefix = (setpriv, "--pdeathsig", "TERM")
    probe = subprocess.run([*prefix, "true"], capture_output=True, check=False)
    return prefix if probe.returncode == 0 else ()


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:]) or "  (nothing)"
