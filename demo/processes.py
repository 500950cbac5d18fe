"""Runs the Procfile: every process of Lookalike on this machine, with a Redis-compatible server of its own."""

import atexit
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self

from demo.ports import LOOPBACK, free_port
from demo.process import POLL_SECONDS, Process, ProcessFailed, stop_all
from demo.procfile import RELEASE, read_procfile
from demo.readiness import READY, Readiness
from demo.redis_server import NAME as REDIS
from demo.redis_server import RedisServer
from demo.state_lock import lock_state

RELEASE_SECONDS = 120
READY_SECONDS = 120  # a cold start reads PyTorch from disk in each worker
GRACE_SECONDS = 10


class ProcessGroup:
    """The processes of a Procfile, started together and stopped together.

    It signals only what it started: redis (unless a URL was given), release (once), then the wanted ones.
    A group is started and stopped once.
    """

    def __init__(
        self,
        root: Path,
        state_dir: Path,
        *,
        environment: Mapping[str, str] | None = None,
        processes: Sequence[str] | None = None,
        redis_url: str | None = None,
        port: int | None = None,
        ready_seconds: float = READY_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """Describe the group; nothing is started yet.

        Args:
            root: folder with the Procfile, where every process runs.
            state_dir: gets logs/ and redis/; one group at a time may use it.
            environment: variables on top of our own environment.
            processes: names from the Procfile; None means all but release.
            redis_url: a running server; None starts one.
            port: where web listens on 127.0.0.1; None means any free one.
            ready_seconds: how long the processes may take until /readyz says ready.
            grace_seconds: how long a process may take to end before it is killed.
        """
        self._root = root
        self._state_dir = state_dir.absolute()
        self._extra_environment = dict(environment or {})
        self._wanted = processes
        self.redis_url = redis_url or ""
        self._port = port or free_port()
        self.base_url = f"http://{LOOPBACK}:{self._port}"
        self._ready_seconds = ready_seconds
        self._grace_seconds = grace_seconds
        self._redis: RedisServer | None = None
        self._processes: dict[str, Process] = {}
        self._resting: set[str] = set()
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and wait until it is ready; if that fails, stop what was started.

        Raises:
            ProcessFailed: if a process dies or is not ready in time.
            StateInUse: if another run uses the state folder.
        """
        atexit.register(self.stop)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything that was started, Redis last; does nothing the second time."""
        atexit.unregister(self.stop)
        try:
            stop_all(list(self._processes.values()), self._grace_seconds)
        finally:
            if self._redis:
                self._redis.process.stop(self._grace_seconds)
            self._resources.close()

    def pid(self, name: str) -> int:
        """Return the id of a process, which is also the id of its process group."""
        return self._process(name).pid

    def is_running(self, name: str) -> bool:
        """Tell whether a process was started and has not ended."""
        return self._process(name).is_running()

    def log(self, name: str) -> Path:
        """Return the file that holds what a process printed."""
        return self._state_dir / "logs" / f"{name}.log"

    def kill(self, name: str, signum: int = signal.SIGKILL) -> None:
        """Signal a process and, if it was SIGKILL, wait for its end. `wait` then takes its absence for wanted.

        SIGKILL goes to the whole process group, as when a machine dies; any other signal to the process alone.
        """
        self._resting.add(name)
        self._process(name).send(signum)
        if signum == signal.SIGKILL:
            self._process(name).wait(time.monotonic() + self._grace_seconds)

    def restart(self, name: str) -> None:
        """Stop a process, if it still runs, and start it anew; see `wait_until_ready`."""
        process = self._process(name)
        process.stop(self._grace_seconds)
        if self._redis and name == REDIS:
            self._redis.start(self._lock.fileno())
        else:
            process.start()
        self._resting.discard(name)

    def wait_until_ready(self) -> None:
        """Wait until /readyz says ready and, if `search` is in the group, a search worker has reported.

        Raises:
            ProcessFailed: if a process died meanwhile, or the time is over.
        """
        if "web" not in self._processes:
            return
        needs_search_worker = "search" in self._processes
        deadline = time.monotonic() + self._ready_seconds
        with closing(Readiness(self.base_url, needs_search_worker=needs_search_worker)) as readiness:
            while (state := readiness.state()) != READY:
                self.require_alive()
                if time.monotonic() > deadline:
                    log = self.log("search" if "search worker" in state else "web")
                    raise ProcessFailed(f"not ready after {self._ready_seconds:.0f} s: {state}", log)
                time.sleep(POLL_SECONDS)
        self.require_alive()

    def wait(self) -> None:
        """Wait until a process dies unasked, which is an error, or somebody interrupts.

        Raises:
            ProcessFailed: naming the process that died.
        """
        while True:
            self.require_alive()
            time.sleep(POLL_SECONDS * 10)

    def require_alive(self) -> None:
        """Raise ProcessFailed if a process has ended unasked."""
        for process in [*([self._redis.process] if self._redis else []), *self._processes.values()]:
            if process.name not in self._resting and not process.is_running():
                raise ProcessFailed(f"{process.name} ended with status {process.exit_status()}", process.log)

    def _start(self) -> None:
        (self._state_dir / "logs").mkdir(parents=True, exist_ok=True)
        self._lock = self._resources.enter_context(lock_state(self._state_dir))
        commands = read_procfile(self._root / "Procfile")
        environment = self._environment()
        if not self.redis_url:
            self._redis = RedisServer(self._state_dir / REDIS, environment, self.log(REDIS))
            self._redis.start(self._lock.fileno())
            self.redis_url = self._redis.url
        environment["REDIS_URL"] = self.redis_url
        if RELEASE in commands:
            self._run_release(self._new_process(RELEASE, commands[RELEASE], environment))
        for name in self._wanted if self._wanted is not None else [name for name in commands if name != RELEASE]:
            self._processes[name] = self._new_process(name, commands[name], environment)
            self._processes[name].start()
        self.wait_until_ready()

    def _run_release(self, release: Process) -> None:
        release.start()
        try:
            status = release.wait(time.monotonic() + RELEASE_SECONDS)
        finally:
            release.stop(self._grace_seconds)
        if status != 0:
            raise ProcessFailed(f"release ended with status {status}", release.log)

    def _environment(self) -> dict[str, str]:
        # Our own one, with the programs of this Python first, so that the Procfile needs no paths.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        fixed = {"PATH": path, "PYTHONUNBUFFERED": "1", "LOOKALIKE_WEB_BIND": f"{LOOPBACK}:{self._port}"}
        return {**os.environ, **self._extra_environment, **fixed}

    def _new_process(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Process:
        return Process(name, command, folder=self._root, environment=environment, log=self.log(name))

    def _process(self, name: str) -> Process:
        if self._redis and name == REDIS:
            return self._redis.process
        return self._processes[name]
