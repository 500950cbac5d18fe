"""Index snapshots and encoders that a disk gave back wrong: cut short, or with one bit another."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chaos.experiment import Experiment
from chaos.trial import Trial

PHOTOS = 10
SNAPSHOT_SECONDS = 90


def run(trial: Trial) -> None:
    """Damage all of them while the search worker is dead, and compare what it answers after its start."""
    scale, cache = trial.scale, trial.system.data / "encoders"
    rows = max(scale.side_rows, scale.snapshot_rows)
    trial.check_import(trial.send_import("damaged", rows), "damaged", rows, 300)
    if scale.snapshot_rows:
        trial.say("waiting for an index snapshot")
        is_there = trial.wait_for(lambda: bool(_files(cache)["index snapshot"]), SNAPSHOT_SECONDS)
        trial.require(is_there, f"no index snapshot was written within {SNAPSHOT_SECONDS} s")
    expected = _answers(trial)
    trial.require(bool(_files(cache)["encoder"]), "no encoder file was found")
    damaged = 0
    for what in ("index snapshot", "encoder", "compiled encoder"):
        for how in ("cut short", "one bit changed"):
            files = _files(cache)[what]
            if not files:
                continue
            trial.say(f"{what} {how}: {len(files)} files")
            trial.system.group.kill("search")
            with _damaged(trial, files, how):
                trial.system.group.restart("search")
                trial.recovery(f"{what} {how}")
                trial.require(_answers(trial) == expected, f"{what} {how}: the answers are other ones")
            damaged += len(files)
    trial.record.figures["files_damaged"] = damaged


def _files(cache: Path) -> dict[str, list[Path]]:
    """Return what this machine keeps, by what it is."""
    found: dict[str, list[Path]] = {"index snapshot": [], "encoder": [], "compiled encoder": []}
    for path in sorted(cache.rglob("*")):
        if not path.is_file() or not path.stat().st_size or path.name.startswith("."):
            continue
        inside = path.relative_to(cache).parts
        what = "index snapshot" if inside[0] == "indexes" else "compiled encoder" if "compiled" in inside else "encoder"
        found[what].append(path)
    return found


@contextmanager
def _damaged(trial: Trial, files: Sequence[Path], how: str) -> Iterator[None]:
    """Damage files for the time of the block; what the system replaced meanwhile is left as it is."""
    whole = {path: path.read_bytes() for path in files}
    bad = {}
    for path, data in whole.items():
        position = trial.random.randrange(len(data))
        flipped = bytes([data[position] ^ 1 << trial.random.randrange(8)])
        bad[path] = data[:position] if how == "cut short" else data[:position] + flipped + data[position + 1 :]
        path.write_bytes(bad[path])
    try:
        yield
    finally:
        for path, data in bad.items():
            if path.exists() and path.read_bytes() == data:
                path.write_bytes(whole[path])


def _answers(trial: Trial) -> list[Any]:
    """Return what some photos find."""
    answers = []
    for number in range(PHOTOS):
        job = trial.finished(trial.search(f"damaged-{number:05d}"), 60)
        hits = job["result"]["hits"] if job and job["result"] else []
        answers.append([(hit["item_id"], round(hit["score"], 3)) for hit in hits[:3]])
    return answers


EXPERIMENT = Experiment(
    "damaged-files",
    "Files of the index snapshot (not in the quick form) and of the encoder, on a worker's disk, are cut short "
    "or have one bit changed; the worker starts again.",
    "None of them is used: it starts with whole ones, and answers as before.",
    run,
)
