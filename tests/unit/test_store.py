import hashlib
import io
import resource
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from shared.errors import StoreFull
from shared.store import Store

PHOTO = bytes(range(256)) * 100


@pytest.fixture(params=["folder", "remote"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A local folder, and fsspec's file system in memory, which stands for all that are no folder."""
    if request.param == "folder":
        yield str(tmp_path / "not" / "there" / "yet")
        return
    root = f"memory://{uuid.uuid4().hex}"
    yield root
    memory = fsspec.filesystem("memory")
    if memory.exists(root):
        memory.rm(root, recursive=True)


@pytest.fixture
def store(url: str) -> Store:
    return Store(url)


def files_in(url: str) -> list[str]:
    fs, root = fsspec.core.url_to_fs(url)
    return sorted(path.removeprefix(root).strip("/") for path in fs.find(root))


def test_an_image_is_kept_under_the_hash_of_its_bytes(store: Store, url: str) -> None:
    sha256 = store.put_images([PHOTO])[0]
    assert sha256 == hashlib.sha256(PHOTO).hexdigest()
    assert store.image(sha256) == PHOTO
    assert files_in(url) == [f"images/{sha256[:2]}/{sha256[2:4]}/{sha256}"] == [Store.image_key(sha256)]


def test_a_known_image_is_not_written_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    path = tmp_path / Store.image_key(store.put_images([PHOTO])[0])
    before = path.stat()
    store.put_images([PHOTO])
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_an_image_that_is_not_there_is_an_error(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.image("0" * 64)
    with pytest.raises(FileNotFoundError):
        store.open("imports/none.ndjson")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_file_whose_writing_fails_is_not_there_at_all(store: Store, url: str, error: type[BaseException]) -> None:
    with pytest.raises(error), store.writing("uploads/a/catalogue.csv") as file:
        file.write(PHOTO)
        file.flush()
        raise error
    assert not store.exists("uploads/a/catalogue.csv")
    assert files_in(url) == []


def test_a_file_is_not_there_before_its_writing_has_ended(store: Store) -> None:
    with store.writing("uploads/a/catalogue.csv") as file:
        file.write(PHOTO)
        file.flush()
        assert not store.exists("uploads/a/catalogue.csv")
    assert store.exists("uploads/a/catalogue.csv")


def test_a_failed_change_of_a_file_leaves_it_as_it_was(store: Store, url: str) -> None:
    store.put_stream("a/b", io.BytesIO(b"old"))
    with pytest.raises(ValueError, match="stop"), store.writing("a/b") as file:
        file.write(b"new")
        raise ValueError("stop")
    with store.open("a/b") as kept:
        assert kept.read() == b"old"
    assert files_in(url) == ["a/b"]


def test_a_second_writing_replaces_the_file(store: Store, url: str) -> None:
    store.put_stream("a/b", io.BytesIO(b"a longer text"))
    store.put_stream("a/b", io.BytesIO(b"short"))
    with store.open("a/b") as file:
        assert file.read() == b"short"
    assert files_in(url) == ["a/b"]


def test_many_threads_may_keep_the_same_image_at_once(store: Store, url: str) -> None:
    photos = [bytes([number]) * 50_000 for number in range(4)] * 8
    with ThreadPoolExecutor(16) as pool:
        hashes = [sha256 for (sha256,) in pool.map(store.put_images, ([photo] for photo in photos))]
    assert hashes == [hashlib.sha256(photo).hexdigest() for photo in photos]
    assert files_in(url) == sorted({Store.image_key(sha256) for sha256 in hashes})
    assert all(store.image(sha256) == photo for sha256, photo in zip(hashes, photos, strict=True))


def test_a_stream_is_kept_from_where_it_stands_and_reads_anywhere(store: Store) -> None:
    stream = io.BytesIO(PHOTO)
    stream.seek(10)
    store.put_stream("uploads/b/catalogue.zip", stream)
    with store.open("uploads/b/catalogue.zip") as file:
        file.seek(-5, io.SEEK_END)
        assert file.read() == PHOTO[-5:]
        file.seek(0)
        assert file.read() == PHOTO[10:]


def test_a_tree_goes_with_all_its_files_and_nothing_else(store: Store, url: str) -> None:
    for key in ("imports/a/000000.ndjson", "imports/a/000001.ndjson", "imports/ab/000000.ndjson"):
        store.put_stream(key, io.BytesIO(b"{}"))
    store.remove_tree("imports/a")
    assert files_in(url) == ["imports/ab/000000.ndjson"]
    store.remove_tree("imports/a")
    store.remove_tree("imports/ab/000000.ndjson")
    assert files_in(url) == []


def test_a_folder_names_what_it_holds(store: Store) -> None:
    assert store.names("batches") == []
    for key in ("batches/a/1.json", "batches/a/2.json", "batches/b/1.json"):
        with store.writing(key) as file:
            file.write(b"{}")
    assert sorted(store.names("batches")) == ["a", "b"]
    assert sorted(store.names("batches/a")) == ["1.json", "2.json"]


def test_a_store_without_room_is_named_and_keeps_no_half_of_a_file(tmp_path: Path) -> None:
    store, limits = Store(str(tmp_path)), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(PHOTO) - 1, limits[1]))
    try:
        with pytest.raises(StoreFull, match="Make room"):
            store.put_images([PHOTO])
        with pytest.raises(StoreFull):
            store.put_stream("uploads/a", io.BytesIO(PHOTO))
        store.put_stream("uploads/b", io.BytesIO(PHOTO[:10]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files_in(str(tmp_path)) == ["uploads/b"]
    assert store.put_images([PHOTO])
