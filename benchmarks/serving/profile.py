"""What holds a process's interpreter, by py-spy, as a table of categories.

Only the thread that holds Python's global lock (the GIL) is sampled: py-spy can't tell on every system which of the
others compute, and which wait for that lock within a call into native code.
"""

import re
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from benchmarks.serving.processes import environment

RATE = 100
SPARE_SECONDS = 60

# Tried from the innermost frame outwards: the first frame that one fits names the sample.
CATEGORIES = (
    ("decode", r"worker/decode|worker/fast_decode|image_header|PIL/(ImageFile|JpegImagePlugin|PngImagePlugin)"),
    ("resize", r"worker/encoder/(transform|scaling)|cykooz_resizer|PIL/Image"),
    ("model", r"openvino|torch/|worker/encoder/|_forward \(worker/embedder"),
    ("faiss", r"faiss/|worker/index/"),
    ("redis client", r"\bredis/|hiredis"),
    ("celery and kombu", r"celery/|kombu/|billiard/|amqp/|vine/"),
    ("sqlalchemy", r"sqlalchemy/|sqlite3/"),
    ("json and pydantic", r"pydantic|json/"),
    ("metrics", r"prometheus_client/"),
    ("gunicorn", r"gunicorn/"),
    ("flask and werkzeug", r"flask|werkzeug/"),
    ("Lookalike's own Python", r"(web|worker|shared)/"),
)
QUEUEING = re.compile(r"kombu/|celery/")
# The innermost frame of a thread that waits for others or for the network; py-spy can't tell that on every system.
WAITING = re.compile(
    r"(^|[._])(wait|acquire|select|poll|sleep|lock|worker|wait_for_signals|read_from_socket|recv|recv_into|accept) \("
)
_PATTERNS = [(name, re.compile(pattern)) for name, pattern in CATEGORIES]
IDLE = "waiting"
OTHER = "other"


class ProfileUnavailable(RuntimeError):
    """py-spy is missing, or may not look into a process; the message says why."""


class Profiler:
    """Samples process groups for some seconds, beside a load."""

    def __init__(self, pids: dict[str, int], seconds: float, folder: Path) -> None:
        self._pids, self._seconds, self._folder = pids, seconds, folder
        self._results: dict[str, subprocess.CompletedProcess[str]] = {}
        self._threads = [threading.Thread(target=self._record, args=(name,)) for name in pids]

    def start(self) -> None:
        """Begin to sample; one py-spy for each process.

        Raises:
            ProfileUnavailable: if py-spy is not installed.
        """
        if shutil.which("py-spy", path=environment()["PATH"]) is None:
            raise ProfileUnavailable("py-spy is not installed")
        self._folder.mkdir(parents=True, exist_ok=True)
        for thread in self._threads:
            thread.start()

    def categories(self) -> dict[str, dict[str, float]]:
        """Wait for the end; return for each process the seconds that each category held the lock, the longest first.

        Raises:
            ProfileUnavailable: if a process could not be sampled.
        """
        for thread in self._threads:
            thread.join()
        held = {}
        for name in self._pids:
            result = self._results.get(name)
            raw = self._folder / f"{name}.txt"
            if result is None or result.returncode != 0 or not raw.is_file():
                raise ProfileUnavailable(f"py-spy of {name}: {result.stderr.strip()[-300:] if result else 'no answer'}")
            held[name] = held_seconds(raw.read_text(encoding="utf-8").splitlines())
        return held

    def _record(self, name: str) -> None:
        command = ["py-spy", "record", "--format", "raw", "--output", str(self._folder / f"{name}.txt")]
        command += ["--pid", str(self._pids[name]), "--duration", str(round(self._seconds)), "--rate", str(RATE)]
        self._results[name] = subprocess.run(
            [*command, "--subprocesses", "--gil"],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=self._seconds + SPARE_SECONDS,
            check=False,
        )


def held_seconds(lines: Iterable[str]) -> dict[str, float]:
    """Return the seconds by category, the longest first; what a thread does just before it waits doesn't count.

    Args:
        lines: of py-spy's raw format: frames from the outermost to the innermost, `;` between them, and a count.
    """
    counts: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        counts[category(stack.split(";"))] += int(count)
    del counts[IDLE]
    return {name: count / RATE for name, count in counts.most_common()}


def category(stack: list[str]) -> str:
    """Return what a sample was spent on.

    >>> category(["run (threading.py:982)", "search (worker/engine.py:50)", "read (redis/connection.py:9)"])
    'redis client'
    """
    if WAITING.search(stack[-1]):
        return IDLE
    for frame in reversed(stack):
        for name, pattern in _PATTERNS:
            if pattern.search(frame):
                # Celery's own conversation with Redis is the price of the queue.
                is_queueing = name == "redis client" and any(QUEUEING.search(outer) for outer in stack[-12:])
                return "celery and kombu" if is_queueing and not _is_ours(stack) else name
    return OTHER


def _is_ours(stack: list[str]) -> bool:
    """Whether Lookalike's own code asked, which within a task also runs below Celery's frames."""
    return any(re.search(r"\((web|worker|shared)/", frame) for frame in stack)
