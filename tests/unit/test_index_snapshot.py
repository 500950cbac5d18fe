"""Snapshots: what was written is opened, whatever is not whole or not ours is passed over."""

import json
import logging
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from worker.index.flat_index import FlatIndex
from worker.index.snapshot import ABANDONED_SECONDS, Snapshot, Snapshots
from worker.index.vector_index import Hashes, Rows, Vectors

DIM, ENCODER = 16, "encoder-1"


def unit(count: int, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def pages(count: int = 30) -> Iterator[tuple[Rows, Hashes, Vectors]]:
    rows, hashes = np.arange(100, 100 + count), np.arange(count * 32, dtype=np.int64).astype(np.uint8).reshape(-1, 32)
    for page in np.array_split(np.arange(count), 3):
        yield rows[page], hashes[page], unit(count)[page]


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "kept", ENCODER, DIM)


def assert_whole(snapshot: Snapshot | None, count: int = 30) -> None:
    assert snapshot is not None
    oracle = FlatIndex(DIM)
    hashes = []
    for rows, page_hashes, vectors in pages(count):
        oracle.add(rows, vectors)
        hashes.append(page_hashes)
    assert snapshot.index.rows.tolist() == oracle.rows.tolist()
    assert (snapshot.hashes == np.concatenate(hashes)).all()
    found, expected = snapshot.index.search(unit(5, seed=3), 9), oracle.search(unit(5, seed=3), 9)
    assert found.rows.tolist() == expected.rows.tolist()
    assert found.scores.tolist() == expected.scores.tolist()


def only(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_what_was_written_is_opened_and_there_is_none_before(snapshots: Snapshots) -> None:
    assert snapshots.newest() is None
    assert_whole(snapshots.write(pages()))
    assert_whole(snapshots.newest())


def test_an_index_without_rows_can_be_kept(snapshots: Snapshots) -> None:
    snapshots.write(iter([]))
    opened = snapshots.newest()
    assert opened is not None
    assert len(opened.index) == len(opened.hashes) == 0


def test_the_newest_is_opened_and_two_are_kept(snapshots: Snapshots, tmp_path: Path) -> None:
    first = snapshots.write(pages(10))
    for count in (20, 25, 30):
        snapshots.write(pages(count))
    assert len(list((tmp_path / "kept").iterdir())) == 2
    assert_whole(snapshots.newest(), 30)
    assert_whole(first, 10)  # removed, but whole for who has it open


def test_what_another_process_left_half_written_is_removed_once_it_is_old(snapshots: Snapshots, tmp_path: Path) -> None:
    now = time.time_ns()
    old, new = (tmp_path / "kept" / f".{at:020d}-abcd" for at in (now - (ABANDONED_SECONDS + 60) * 10**9, now))
    for folder in (old, new):
        folder.mkdir(parents=True)
    snapshots.write(pages())
    assert (old.exists(), new.exists()) == (False, True)
    assert_whole(snapshots.newest())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, empty, os.remove])
@pytest.mark.parametrize("name", ["manifest.json", "vectors.faiss", "rows.npy", "hashes.npy"])
def test_a_damaged_snapshot_is_passed_over_for_the_one_before_with_a_warning(
    snapshots: Snapshots, tmp_path: Path, name: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    snapshots.write(pages())
    snapshots.write(pages(12))
    newest = max((tmp_path / "kept").iterdir())
    damage(newest / name)
    with caplog.at_level(logging.WARNING):
        assert_whole(snapshots.newest(), 30)
    assert str(newest) in caplog.text


@pytest.mark.parametrize("manifest", ["[]", "{}", "null", '{"format": 2}', "\x00"])
def test_a_manifest_of_another_kind_is_passed_over(snapshots: Snapshots, tmp_path: Path, manifest: str) -> None:
    snapshots.write(pages())
    (only(tmp_path / "kept") / "manifest.json").write_text(manifest)
    assert snapshots.newest() is None


def test_a_manifest_of_a_later_format_or_another_kind_of_index_is_passed_over(
    snapshots: Snapshots, tmp_path: Path
) -> None:
    snapshots.write(pages())
    path = only(tmp_path / "kept") / "manifest.json"
    whole = json.loads(path.read_text())
    for name, value in (("format", 2), ("kind", "ivf"), ("encoder_id", "encoder-2"), ("dim", DIM * 2)):
        path.write_text(json.dumps({**whole, name: value}))
        assert snapshots.newest() is None
    path.write_text(json.dumps(whole))
    assert_whole(snapshots.newest())


def test_a_snapshot_of_another_encoder_is_not_opened(snapshots: Snapshots, tmp_path: Path) -> None:
    snapshots.write(pages())
    assert Snapshots(tmp_path / "kept", "encoder-2", DIM).newest() is None
    assert Snapshots(tmp_path / "kept", ENCODER, DIM + 1).newest() is None


def test_what_fails_while_it_is_written_leaves_nothing(snapshots: Snapshots, tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[Rows, Hashes, Vectors]]:
        yield from pages()
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        snapshots.write(broken())
    assert not list((tmp_path / "kept").glob("*"))
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OSError, match="file"):
        Snapshots(blocked / "kept", ENCODER, DIM).write(pages())


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Have the system refuse what would make a file longer than so many bytes, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_the_disk_has_no_room_for_leaves_nothing_and_takes_nothing_away(
    snapshots: Snapshots, tmp_path: Path
) -> None:
    for _ in range(2):
        snapshots.write(pages())
    before = sorted((tmp_path / "kept").iterdir())
    with files_of_at_most(4000), pytest.raises(OSError, match="FAISS can't write"):
        snapshots.write(pages(300))
    # FAISS does not see that the last bytes of a file are refused.
    with files_of_at_most(1500), pytest.raises(ValueError, match="FAISS can't read"):
        snapshots.write(pages())
    assert sorted((tmp_path / "kept").iterdir()) == before
    assert_whole(snapshots.newest())
