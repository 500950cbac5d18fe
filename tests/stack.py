"""A running Lookalike, as tests see it: its processes, and its API."""

import csv
import io
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from demo.processes import ProcessGroup

ROOT = Path(__file__).parent.parent
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Stack:
    """The processes of the Procfile and a client of their API."""

    def __init__(self, group: ProcessGroup, database: Path | None = None) -> None:
        self.group = group
        self.database = database
        self.base_url = group.base_url

    @classmethod
    def start(cls, folder: Path, environment: dict[str, str], root: Path = ROOT) -> "Stack":
        folder.mkdir(parents=True, exist_ok=True)
        fixed = {
            "DATABASE_URL": f"sqlite:///{folder}/lookalike.sqlite3",
            "LOOKALIKE_STORE_URL": str(folder / "store"),
            "LOOKALIKE_ALLOW_PRIVATE_URLS": "true",
            "LOOKALIKE_WEBHOOK_SECRET": WEBHOOK_SECRET,
        }
        group = ProcessGroup(root, folder / "state", environment={**fixed, **environment})
        group.start()
        return cls(group, folder / "lookalike.sqlite3")

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.base_url + path, timeout=60, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return requests.post(self.base_url + path, timeout=60, **options)

    def put(self, path: str, **options: Any) -> requests.Response:
        return requests.put(self.base_url + path, timeout=60, **options)

    def delete(self, path: str, **options: Any) -> requests.Response:
        return requests.delete(self.base_url + path, timeout=60, **options)

    def finished(self, job_id: str, seconds: float = 60) -> dict[str, Any]:
        """Wait for a job's end and return it."""
        deadline = time.monotonic() + seconds
        while True:
            job = self.get(f"/v1/jobs/{job_id}?wait=5").json()
            if job["status"] not in ("queued", "running"):
                return job
            assert time.monotonic() < deadline, f"not done after {seconds} s: {job}"

    def search(self, photo: bytes, fresh: bool = False, **fields: Any) -> dict[str, Any]:
        """Search with a photo and return the finished job."""
        headers = {"Prefer": "wait=20", **({"Cache-Control": "no-cache"} if fresh else {})}
        answer = self.post("/v1/searches", files={"image": photo}, data=fields, headers=headers)
        assert answer.status_code in (200, 202), answer.text
        return self.finished(answer.json()["id"])

    def imported(self, file: bytes, name: str = "catalogue.csv", **fields: Any) -> dict[str, Any]:
        """Import an uploaded file and return the finished job."""
        answer = self.post("/v1/imports", files={"file": (name, file)}, data=fields)
        assert answer.status_code == 202, answer.text
        return self.finished(answer.json()["id"], seconds=120)


def folder_with_app(folder: Path, app: str) -> tuple[Path, dict[str, str]]:
    """Return a folder whose Procfile starts workers of another application, and the environment they need there."""
    folder.mkdir()
    commands = (ROOT / "Procfile").read_text().replace("--app worker.app worker", f"--app {app} worker")
    (folder / "Procfile").write_text(commands)
    return folder, {"PYTHONPATH": str(ROOT), "LOOKALIKE_ENCODER_CACHE_PATH": str(ROOT / "var" / "encoders")}


def zipped(catalogue: Path, rows: int) -> bytes:
    """Return a ZIP of the first rows of a catalogue folder, with their photos."""
    with (catalogue / "products.csv").open(encoding="utf-8", newline="") as file:
        chosen = list(csv.DictReader(file))[:rows]
    table, packed = io.StringIO(), io.BytesIO()
    writer = csv.DictWriter(table, list(chosen[0]))
    writer.writeheader()
    writer.writerows(chosen)
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("products.csv", table.getvalue())
        for name in {name for row in chosen for name in row["image"].split("|")}:
            archive.write(catalogue / name, name)
    return packed.getvalue()


@contextmanager
def running_stack(folder: Path, environment: dict[str, str]) -> Iterator[Stack]:
    stack = Stack.start(folder, environment)
    try:
        yield stack
    finally:
        stack.group.stop()


def wait_until(is_true: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until something holds.

    Raises:
        AssertionError: if it doesn't within the time.
    """
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)
