"""Bases of an index on disk: immutable, mapped by every process that opens them, replaced by newer ones.

A snapshot is a folder:

    manifest.json    what it is, what was measured, and size and SHA-256 of the other files
    rows.npy         int64 (n,), the rows in the index's order
    hashes.npy       uint8 (n, 32), SHA-256 of the image of each row
    vectors.faiss    of an exact index: the index
    vectors.npy      of an approximate one: float16 (images, dim)
    structure.faiss  of an approximate one: what finds candidates
    starts.npy       of an approximate one: int64 (images + 1,), where the rows of each image begin
"""

import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from worker.index.approximate_index import ApproximateIndex
from worker.index.arguments import FilterPlan, QueryArguments
from worker.index.base_builder import HALVES, STRUCTURE, BaseBuilder, Built
from worker.index.flat_index import FlatIndex
from worker.index.half_vectors import HalfVectors
from worker.index.recipe import EXACT, IndexRecipe
from worker.index.structure import Structure
from worker.index.vector_index import Hashes, Page, ReadableIndex, Rows, Vectors

log = logging.getLogger(__name__)

KEPT = 2  # another process may be about to open the last but one
ABANDONED_SECONDS = 86_400  # ten million rows take hours
VECTORS, ROWS, HASHES, STARTS = "vectors.faiss", "rows.npy", "hashes.npy", "starts.npy"


class _File(BaseModel):
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "_File":
        with path.open("rb") as file:
            return cls(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


class _Approximate(BaseModel):
    """What BaseBuilder tells of an index, as far as opening it takes; the rest is for people."""

    factory: str
    arguments: dict[str, int]
    plan: dict[str, Any]


class _Manifest(BaseModel):
    format: Literal[1] = 1
    kind: Literal["flat", "approximate"] = "flat"
    encoder_id: str
    dim: int
    recipe: dict[str, Any] = {}
    index: dict[str, Any] = {}
    files: dict[str, _File]

    @property
    def file_names(self) -> list[str]:
        """The names of the files that it must have."""
        return [ROWS, HASHES, *([VECTORS] if self.kind == "flat" else [HALVES, STRUCTURE, STARTS])]


@dataclass(frozen=True)
class Snapshot:
    """An opened snapshot.

    Attributes:
        name: names of later ones are greater.
        index: mapped, not to be changed.
        hashes: uint8 (n, 32), SHA-256 of the image of each of the index's rows.
        described: JSON values: kind, factory, arguments and what was measured; only the kind of an exact one.
    """

    name: str
    index: ReadableIndex
    hashes: Hashes
    described: dict[str, Any]


class Snapshots:
    """The snapshots of one encoder's embeddings in a folder of their own; several processes may use it."""

    def __init__(self, folder: Path, encoder_id: str, dim: int, recipe: IndexRecipe = EXACT, kept: int = KEPT) -> None:
        """Args:
        folder: made where there is none.
        encoder_id: whose embeddings.
        dim: their length.
        recipe: what is to be built; all snapshots of a folder are of one.
        kept: how many stay when another one is written.
        """
        self._folder = folder
        self._encoder_id = encoder_id
        self._dim = dim
        self.recipe = recipe
        self._kept = kept

    def newest(self, after: str = "") -> Snapshot | None:
        """Open the newest snapshot that is whole and of this encoder; others are passed over with a warning.

        Args:
            after: only one with a greater name than that.
        """
        for path in self._all():
            if path.name <= after:
                return None
            try:
                return self._open(path)
            except (OSError, ValueError) as error:
                log.warning("The index snapshot %s can't be used: %s", path, error)
        return None

    def newest_name(self) -> str:
        """Return the name of the newest snapshot, whole or not; empty where there is none."""
        return max((path.name for path in self._all()), default="")

    @contextmanager
    def writing(self) -> Iterator[bool]:
        """Have one process or thread write at a time: gives whether this is the one; it does not wait."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def write(self, pages: Iterable[Page], expected_rows: int = 0, queries: Vectors | None = None) -> Snapshot:
        """Write rows, image hashes and vectors as the newest snapshot, open it, and remove those that it replaces.

        Args:
            pages: all rows.
            expected_rows: about how many these are: whether they are enough for an approximate index.
            queries: float32 (q, dim), unit rows, to tune an approximate one with; None holds rows out for that.

        Raises:
            OSError: if it can't be written; nothing is left of it, and those before it stay.
            ValueError: if what was written can't be opened, or no index reaches the recall that the recipe wants;
                likewise.
        """
        name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        path, aside = self._folder / name, self._folder / f".{name}"
        aside.mkdir(parents=True)
        try:
            is_exact = self.recipe.is_exact_for(expected_rows, self._dim)
            if is_exact:
                built = self._write_exact(aside, pages)
            else:
                built = BaseBuilder(aside, self._dim, self.recipe).build(pages, expected_rows, queries)
            np.save(aside / ROWS, built.rows)
            np.save(aside / HASHES, built.hashes)
            if not is_exact:
                np.save(aside / STARTS, built.starts)
            manifest = _Manifest(
                kind="flat" if is_exact else "approximate",
                encoder_id=self._encoder_id,
                dim=self._dim,
                recipe=self.recipe.to_dict(),
                index=built.described,
                files={file.name: _File.of(file) for file in aside.iterdir()},
            )
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

    def _write_exact(self, folder: Path, pages: Iterable[Page]) -> Built:
        index, hashes = FlatIndex(self._dim), [np.empty((0, 32), np.uint8)]
        for page_rows, page_hashes, page_vectors in pages:
            index.add(page_rows, page_vectors)
            hashes.append(page_hashes)
        _save(index, folder / VECTORS)
        return Built(index.rows, np.concatenate(hashes), np.arange(len(index) + 1), {"kind": "flat"})

    def _all(self) -> list[Path]:
        """Return all snapshots, the newest first."""
        return sorted((path for path in self._folder.glob("[0-9]*") if path.is_dir()), reverse=True)

    def _prune(self) -> None:
        for path in self._all()[self._kept :]:
            shutil.rmtree(path, ignore_errors=True)
        for path in self._folder.glob(".[0-9]*"):  # of a process that ended while it wrote
            if time.time_ns() - int(path.name[1:21]) > ABANDONED_SECONDS * 10**9:
                shutil.rmtree(path, ignore_errors=True)

    def _open(self, path: Path) -> Snapshot:
        manifest = _Manifest.model_validate_json((path / "manifest.json").read_bytes())
        if (manifest.encoder_id, manifest.dim) != (self._encoder_id, self._dim):
            raise ValueError(f"it is of {manifest.encoder_id} with {manifest.dim} dimensions")
        for name in manifest.file_names:
            if manifest.files.get(name) != _File.of(path / name):
                raise ValueError(f"{name} is damaged")
        rows, hashes = np.load(path / ROWS), np.load(path / HASHES, mmap_mode="r")
        if manifest.kind == "flat":
            return Snapshot(path.name, FlatIndex.mapped(path / VECTORS, rows), hashes, {"kind": "flat"})
        return Snapshot(path.name, _open_approximate(path, manifest, rows), hashes, manifest.index)


def _open_approximate(path: Path, manifest: _Manifest, rows: Rows) -> ApproximateIndex:
    described = _Approximate.model_validate(manifest.index)
    structure = Structure.mapped(path / STRUCTURE, described.factory)
    stored = HalfVectors.mapped(path / HALVES)
    if stored.dim != manifest.dim:
        raise ValueError(f"{HALVES} has vectors of {stored.dim} numbers")
    arguments, plan = QueryArguments(**described.arguments), FilterPlan(**described.plan)
    return ApproximateIndex(structure, stored, rows, arguments, plan, np.load(path / STARTS))


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
