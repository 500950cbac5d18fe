import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any, BinaryIO

import pytest

from shared.errors import ImageMissing, ImportFileBroken, PathRefused
from shared.settings import Settings
from shared.store import Store
from worker.fetcher import GuardedFetcher
from worker.imports.archive import Archive, LastArchive, open_archive
from worker.imports.sources import open_import

MEMBERS = 2000
OPTIONS: dict[str, Any] = {"format": None, "columns": None, "encoding": "utf-8"}


def packed(name: str, members: int = MEMBERS) -> bytes:
    """Return a ZIP with a table of one row and many photos, each of which is its own name."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("products.csv", f"id,image\n{name},0.jpg\n")
        for number in range(members):
            archive.writestr(f"{number}.jpg", f"{name} {number}")
    return file.getvalue()


class CountingFile(io.BytesIO):
    """A file that counts the bytes that were read from it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.bytes_read = 0

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        self.bytes_read += len(content)
        return content


class CountingStore(Store):
    """A store whose last opened file tells how much of it was read."""

    last: CountingFile

    def open(self, key: str) -> BinaryIO:
        with super().open(key) as file:
            self.last = CountingFile(file.read())
        return self.last


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "root").mkdir()
    return Settings(_env_file=None, store_url=str(tmp_path / "store"), import_root=tmp_path / "root")


@pytest.fixture
def store(settings: Settings) -> CountingStore:
    return CountingStore(settings.store_url)


def read(parameters: dict[str, Any], photo: str, settings: Settings, store: Store) -> bytes:
    """Open the file of an import, as each chunk does, and read one of its photos."""
    with open_import({**OPTIONS, **parameters}, settings, store, GuardedFetcher(True, 1)) as opened:
        return opened.images.read(photo)


def test_bug_every_chunk_of_an_import_parsed_the_whole_directory_of_its_zip(
    settings: Settings, store: CountingStore
) -> None:
    with store.writing("uploads/a/catalogue.zip") as file:
        file.write(packed("a"))
    upload = {"upload": "uploads/a/catalogue.zip"}
    assert read(upload, "0.jpg", settings, store) == b"a 0"
    first = store.last.bytes_read
    for number in (1, MEMBERS - 1):
        assert read(upload, f"{number}.jpg", settings, store) == f"a {number}".encode()
        assert store.last.bytes_read < first - MEMBERS * 46, "of its directory, which has 46 bytes and a name for each"


def test_another_import_gets_its_own_archive(settings: Settings, store: CountingStore) -> None:
    for name in "ab":
        with store.writing(f"uploads/{name}/catalogue.zip") as file:
            file.write(packed(name, members=3))
    for name in "abba":
        assert read({"upload": f"uploads/{name}/catalogue.zip"}, "1.jpg", settings, store) == f"{name} 1".encode()


def test_a_zip_below_the_import_root_that_was_replaced_is_opened_anew(
    settings: Settings, store: Store, tmp_path: Path
) -> None:
    for name, members in (("a", 3), ("b", 5), ("c", 2)):
        (tmp_path / "root" / "shop.zip").write_bytes(packed(name, members))
        for _ in range(2):
            last = f"{members - 1}.jpg"
            assert read({"path": "shop.zip"}, last, settings, store) == f"{name} {members - 1}".encode()
    with pytest.raises(ImageMissing):
        read({"path": "shop.zip"}, "2.jpg", settings, store)


def test_an_archive_that_is_gone_is_not_read_from_memory(settings: Settings, store: Store, tmp_path: Path) -> None:
    (tmp_path / "root" / "shop.zip").write_bytes(packed("a", members=1))
    with store.writing("uploads/a/catalogue.zip") as file:
        file.write(packed("a", members=1))
    for parameters in ({"upload": "uploads/a/catalogue.zip"}, {"path": "shop.zip"}):
        assert read(parameters, "0.jpg", settings, store) == b"a 0"
    store.remove_tree("uploads/a")
    (tmp_path / "root" / "shop.zip").unlink()
    with pytest.raises(ImportFileBroken, match="not in the store any more"):
        read({"upload": "uploads/a/catalogue.zip"}, "0.jpg", settings, store)
    with pytest.raises(PathRefused, match="no readable file"):
        read({"path": "shop.zip"}, "0.jpg", settings, store)


def test_threads_never_share_an_archive() -> None:
    last, content, inside = LastArchive(), packed("a", members=3), Barrier(4, timeout=10)

    def open_new(file: BinaryIO) -> Archive:
        return open_archive(file, max_unpacked_bytes=10**6, max_member_bytes=10**6)

    def use(number: int) -> tuple[int, bytes]:
        with last.opened("same", io.BytesIO(content), open_new) as archive:
            inside.wait()
            return id(archive), archive.read_member(f"{number % 3}.jpg")

    for _ in range(2):
        with ThreadPoolExecutor(4) as pool:
            used = list(pool.map(use, range(4)))
        assert len({identity for identity, _ in used}) == 4
        assert [photo for _, photo in used] == [b"a 0", b"a 1", b"a 2", b"a 0"]


@pytest.mark.parametrize("kind", ["missing", "folder", "unmounted root"])
def test_bug_a_file_that_the_bulk_worker_cannot_open_ended_its_import_as_internal(
    kind: str, settings: Settings, store: Store, tmp_path: Path
) -> None:
    if kind == "folder":
        (tmp_path / "root" / "products.csv").mkdir()
    elif kind == "unmounted root":
        (tmp_path / "root").rmdir()
    with pytest.raises(PathRefused, match=r"no readable file 'products\.csv' below the import root of the bulk worker"):
        read({"path": "products.csv"}, "0.jpg", settings, store)
