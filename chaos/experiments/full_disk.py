"""A disk without room, during an import and the writing of an index snapshot."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.experiment import Experiment
from chaos.photos import catalogue
from chaos.trial import Trial

LEFT_BYTES = 512 * 1024
PART_BYTES = 1024 * 1024
FULL_SECONDS = 8  # a snapshot that is due is written 5 s after the last change
SNAPSHOT_SECONDS = 120
CHECKED_IMAGES = 50


def run(trial: Trial) -> None:
    """Fill the disk that has database, store and index, while an import is under way; import; free it; import again."""
    system, scale = trial.system, trial.scale
    rows = max(scale.side_rows, scale.snapshot_rows)
    before = _snapshots(system.data)
    first = trial.send_import("before-full", rows)
    trial.check_import(first, "before-full", rows, 300)
    under_way = trial.send_import("under-way", rows)
    trial.require(trial.wait_for(lambda: _has_begun(trial, under_way), 60), "the import under way did not begin")
    trial.say("filling the disk")
    with _filled(system.data):
        job = trial.read(under_way)
        trial.require(bool(job and job["status"] == "running"), "the import had ended before the disk was full")
        answer = system.post("/v1/imports", files={"file": ("catalogue.zip", catalogue("no-room", rows))})
        is_told = answer.status_code == 503 and answer.headers.get("Retry-After", "").isdigit()
        trial.require(is_told or answer.status_code == 202, f"an import was answered {answer.status_code}")
        accepted = trial.accepted(answer) if answer.status_code == 202 else None
        small = system.post("/v1/imports", files={"file": ("catalogue.zip", catalogue("small", 20))})
        if small.status_code == 202:
            trial.accepted(small)
        found = trial.finished(trial.search("while-full"), 30)
        trial.require(bool(found and found["status"] == "succeeded"), "a search failed on a full disk")
        time.sleep(FULL_SECONDS)
    trial.recovery("disk full")
    _check_under_way(trial, under_way, rows)
    if accepted:
        trial.finished(accepted, 120)
    _check_images(trial)
    trial.check_import(trial.send_import("no-room", scale.side_rows), "no-room", scale.side_rows, 300)
    if scale.snapshot_rows:
        trial.say("waiting for an index snapshot")
        is_written = trial.wait_for(lambda: bool(_snapshots(system.data) - before), SNAPSHOT_SECONDS)
        trial.require(is_written, f"no index snapshot was written within {SNAPSHOT_SECONDS} s")
    parts = [path.name for path in (system.data / "store").rglob("*.part")]
    trial.require(not parts, f"halves of files were left: {parts[:5]}")


def _has_begun(trial: Trial, job_id: str) -> bool:
    job = trial.read(job_id)
    return bool(job and job["progress"] and job["progress"]["done"])


def _check_under_way(trial: Trial, job_id: str, rows: int) -> None:
    """It ends: with all of its rows, or as failed for want of room; what it reported done is there."""
    job = trial.finished(job_id, 300)
    if job and job["status"] == "failed":
        trial.require(job["error"]["code"] == "store_full", f"the import under way failed: {job['error']}")
        trial.check_rows_reported(job_id, "under-way")
    else:
        trial.check_import(job_id, "under-way", rows, 300)


@contextmanager
def _filled(folder: Path) -> Iterator[None]:
    """Leave hardly any room on a file system for the time of the block."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(PART_BYTES))
            except OSError:
                file.truncate(max(0, file.tell() - LEFT_BYTES))
        yield
    finally:
        filler.unlink(missing_ok=True)


def _snapshots(data: Path) -> set[str]:
    return {path.parent.name for path in (data / "encoders").rglob("rows.npy")}


def _check_images(trial: Trial) -> None:
    """The image of every item is whole."""
    names = sorted(trial.system.items("no-room") | trial.system.items("small"))[:CHECKED_IMAGES]
    for name in names:
        image = trial.system.get(f"/v1/items/{name}").json()["images"][0]
        body = trial.system.get(image["url"]).content
        trial.require(hashlib.sha256(body).hexdigest() == image["sha256"], f"the image of {name} is not whole")
    trial.record.figures["items_imported_meanwhile"] = len(names)


EXPERIMENT = Experiment(
    "full-disk",
    "The file system of database, store and index is filled up during an import; another comes; then there is room.",
    "The import under way ends, the other one is refused with 503, or ends; searches go on; every image is whole; "
    "afterwards the file is imported.",
    run,
    needs_disk=True,
)
