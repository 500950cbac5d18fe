"""Bases of an index on disk: immutable, mapped by every process that opens them, replaced by newer ones.

A snapshot is a folder:

    manifest.json    what it is, and size and SHA-256 of the other files
    vectors.faiss    the index
    rows.npy         int64 (n,), the rows in the index's order
    hashes.npy       uint8 (n, 32), SHA-256 of the image of each row
"""

import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from worker.index.flat_index import FlatIndex
from worker.index.vector_index import Rows, Vectors

log = logging.getLogger(__name__)

Hashes = npt.NDArray[np.uint8]

KEPT = 2  # another process may be about to open the last but one
ABANDONED_SECONDS = 3600
VECTORS, ROWS, HASHES = "vectors.faiss", "rows.npy", "hashes.npy"


class _File(BaseModel):
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "_File":
        with path.open("rb") as file:
            return cls(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


class _Manifest(BaseModel):
    format: Literal[1] = 1
    kind: Literal["flat"] = "flat"
    encoder_id: str
    dim: int
    files: dict[str, _File]


@dataclass(frozen=True)
class Snapshot:
    """An opened snapshot.

    Attributes:
        index: mapped, not to be changed.
        hashes: uint8 (n, 32), SHA-256 of the image of each of the index's rows.
    """

    index: FlatIndex
    hashes: Hashes


class Snapshots:
    """The snapshots of one encoder's embeddings in a folder of their own; several processes may use it."""

    def __init__(self, folder: Path, encoder_id: str, dim: int) -> None:
        self._folder = folder
        self._encoder_id = encoder_id
        self._dim = dim

    def newest(self) -> Snapshot | None:
        """Open the newest snapshot that is whole and of this encoder; others are passed over with a warning."""
        for path in self._all():
            try:
                return self._open(path)
            except (OSError, ValueError) as error:
                log.warning("The index snapshot %s can't be used: %s", path, error)
        return None

    def write(self, pages: Iterable[tuple[Rows, Hashes, Vectors]]) -> Snapshot:
        """Write rows, image hashes and vectors as the newest snapshot, open it, and remove those that it replaces.

        Raises:
            OSError: if it can't be written; nothing is left of it, and those before it stay.
            ValueError: if what was written can't be opened; likewise.
        """
        index, hashes = FlatIndex(self._dim), [np.empty((0, 32), np.uint8)]
        for page_rows, page_hashes, page_vectors in pages:
            index.add(page_rows, page_vectors)
            hashes.append(page_hashes)
        name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        path, aside = self._folder / name, self._folder / f".{name}"
        aside.mkdir(parents=True)
        try:
            _save(index, aside / VECTORS)
            np.save(aside / ROWS, index.rows)
            np.save(aside / HASHES, np.concatenate(hashes))
            files = {name: _File.of(aside / name) for name in (VECTORS, ROWS, HASHES)}
            manifest = _Manifest(encoder_id=self._encoder_id, dim=self._dim, files=files)
            (aside / "manifest.json").write_text(json.dumps(manifest.model_dump(), indent=2))
            for file in aside.iterdir():
                _sync(file)
            _sync(aside)
            aside.rename(path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        _sync(self._folder)
        try:
            snapshot = self._open(path)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        self._prune()
        return snapshot

    def _all(self) -> list[Path]:
        """Return all snapshots, the newest first."""
        return sorted((path for path in self._folder.glob("[0-9]*") if path.is_dir()), reverse=True)

    def _prune(self) -> None:
        for path in self._all()[KEPT:]:
            shutil.rmtree(path, ignore_errors=True)
        for path in self._folder.glob(".[0-9]*"):  # of a process that ended while it wrote
            if time.time_ns() - int(path.name[1:21]) > ABANDONED_SECONDS * 10**9:
                shutil.rmtree(path, ignore_errors=True)

    def _open(self, path: Path) -> Snapshot:
        manifest = _Manifest.model_validate_json((path / "manifest.json").read_bytes())
        if (manifest.encoder_id, manifest.dim) != (self._encoder_id, self._dim):
            raise ValueError(f"it is of {manifest.encoder_id} with {manifest.dim} dimensions")
        for name in (VECTORS, ROWS, HASHES):
            if manifest.files.get(name) != _File.of(path / name):
                raise ValueError(f"{name} is damaged")
        return Snapshot(FlatIndex.mapped(path / VECTORS, np.load(path / ROWS)), np.load(path / HASHES))


def _save(index: FlatIndex, path: Path) -> None:
    try:
        index.save(path)
    except RuntimeError as error:  # FAISS's for whatever the file system refuses
        raise OSError(f"FAISS can't write {path}: {error}") from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
