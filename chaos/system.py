"""The Lookalike that is broken: the Procfile's own processes, a client of their API, and what their logs say."""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
import requests

from chaos.receiver import Receiver
from chaos.redis_pair import RedisPair
from demo.processes import ProcessGroup

ROOT = Path(__file__).parent.parent
REQUEST_SECONDS = 60
PROCESSES = ("web", "search", "bulk", "callbacks", "beat")
GRACE_SECONDS = 60  # longer than what a stopped process has begun may take

# Short times, so that an hour's patience is not needed to see a job come back; the defaults are in docs/settings.md.
SETTINGS = {
    "LOOKALIKE_JOB_LEASE_SECONDS": "3",
    "LOOKALIKE_IMPORT_CHUNK_ROWS": "64",
    "LOOKALIKE_WEBHOOK_TIMEOUT_SECONDS": "1",
    "LOOKALIKE_WEBHOOK_BACKOFF_SECONDS": "0.5",
    "LOOKALIKE_WEBHOOK_MAX_ATTEMPTS": "4",
    "LOOKALIKE_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}

NEWLINE = b"\n"
TRACEBACK = b"Traceback (most recent call last)"
# What is told without one: gunicorn and Celery when they lose a process, and we where only the reason is logged.
UNHANDLED = re.compile(
    rb"Unforeseen error at|\bJob [0-9a-f]{32} failed\b|raised unexpected|Exception in thread|Unrecoverable error|"
    rb"Error handling request|A message of the task|The listener for the ends of jobs failed|"
    rb"The engine could not be loaded"
)
# A traceback that is not told to be the cause or the effect of the one before it, in the lines of one entry.
ANOTHER = re.compile(rb"(?m)(?<=\n)(?<!exception:\n\n)(?<!occurred:\n\n)^(?=Traceback)")
ENTRY = re.compile(rb"(?m)^(?=\d{4}-\d\d-\d\d |\{|\[\d{4}-)")  # where an entry of a log begins; tracebacks follow
# A task that meets a dead Redis ends by its error, which Celery logs; recovery runs the job again. That is foreseen.
# The same holds for a database without room.
FORESEEN = re.compile(rb"redis\.exceptions|kombu\.exceptions|disk is full|disk I/O error|No space left")


class System:
    """A running Lookalike whose settings refuse private addresses."""

    def __init__(
        self,
        group: ProcessGroup,
        folder: Path,
        data: Path,
        environment: Mapping[str, str],
        redis_pair: RedisPair | None = None,
    ) -> None:
        self.group = group
        self.processes = PROCESSES if redis_pair else ("redis", *PROCESSES)
        self._redis_pair = redis_pair
        self.folder = folder
        self.data = data
        self.environment = dict(environment)
        self.base_url = group.base_url
        self._http = requests.Session()
        self._http.trust_env = False
        self._read_until: dict[Path, int] = {}

    @classmethod
    @contextmanager
    def running(
        cls,
        folder: Path,
        data: Path,
        receiver: Receiver,
        settings: Mapping[str, str] | None = None,
        redis_pair: RedisPair | None = None,
    ) -> Iterator["System"]:
        """Start all processes; they end with the block.

        Args:
            folder: gets logs and Redis' data.
            data: gets database, store, encoders and index snapshots.
            receiver: where the public names of the run lead.
            settings: on top of SETTINGS.
            redis_pair: is used; None: a Redis of the system's own.
        """
        environment = {
            **SETTINGS,
            **(settings or {}),
            "DATABASE_URL": f"sqlite:///{data}/lookalike.sqlite3",
            "LOOKALIKE_STORE_URL": str(data / "store"),
            "LOOKALIKE_ENCODER_CACHE_PATH": str(data / "encoders"),
            "PYTHONPATH": str(Path(__file__).parent / "resolver"),
            "CHAOS_RECEIVER_PORT": str(receiver.port),
            "CHAOS_TRAP_PORT": str(receiver.trap.server_port),
        }
        redis_url = redis_pair.url if redis_pair else None
        with ProcessGroup(
            ROOT, folder, environment=environment, redis_url=redis_url, grace_seconds=GRACE_SECONDS
        ) as group:
            system = cls(group, folder, data, environment, redis_pair)
            try:
                yield system
            finally:
                system._http.close()

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request on a connection of its own: a process that died must not break the next one's."""
        headers = {"Connection": "close", **options.pop("headers", {})}
        options.setdefault("timeout", REQUEST_SECONDS)
        return self._http.request(method, self.base_url + path, headers=headers, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        """Send a GET."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        """Send a POST."""
        return self.request("POST", path, **options)

    def items(self, prefix: str) -> set[str]:
        """Return the ids of the items in the catalogue that begin with a prefix and a hyphen."""
        found: set[str] = set()
        cursor = ""
        while True:
            page = self.get(f"/v1/items?limit=500{cursor}").json()
            found |= {item["id"] for item in page["items"] if item["id"].startswith(f"{prefix}-")}
            if not page["next_cursor"]:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    def wait_for_workers(self, search: int, seconds: float) -> bool:
        """Wait until so many search workers are present; returns whether they are."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if self.get("/readyz", timeout=5).json().get("search_workers") == search:
                    return True
            except (requests.RequestException, ValueError):
                pass  # it starts
            time.sleep(0.1)
        return False

    @contextmanager
    def redis(self) -> Iterator["redis.Redis"]:
        """Give a client of the system's Redis."""
        with redis.Redis.from_url(self.group.redis_url, socket_timeout=10) as client:
            yield client

    @property
    def redis_pair(self) -> RedisPair:
        """The pair that the system uses; only systems of experiments that need a replica have one."""
        if self._redis_pair is None:
            raise RuntimeError("this system has one Redis")
        return self._redis_pair

    @property
    def port(self) -> int:
        """Where web listens."""
        return urlsplit(self.base_url).port or 80

    def unhandled(self) -> list[str]:
        """Return the lines of exceptions that nobody had foreseen, of all logs, since this was asked before."""
        found = []
        for log in sorted(self.folder.rglob("logs/*.log")):
            text = log.read_bytes()[self._read_until.get(log, 0) :]
            self._read_until[log] = self._read_until.get(log, 0) + len(text)
            for entry in _entries(text):
                if (TRACEBACK in entry or UNHANDLED.search(entry)) and not FORESEEN.search(entry):
                    found.append(f"{log.stem}: {entry.partition(NEWLINE)[0].decode(errors='replace')[:300]}")
        return found


def _entries(text: bytes) -> Iterator[bytes]:
    """Yield the entries of a log, each with its traceback; one that no entry tells of is an entry of its own."""
    for entry in ENTRY.split(text):
        parts = ANOTHER.split(entry)
        yield b"".join(parts[:2])
        yield from parts[2:]
