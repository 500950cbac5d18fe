"""Photos taken in for the catalogue: bounded memory, no bad embedding, nothing read in vain."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Lock, Semaphore, Thread
from time import monotonic
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from shared.database import connect_database
from shared.errors import Internal
from shared.store import Store
from tests.camera import SECRET, taken
from tests.photo_intake import DIM, TRANSFORM, CornerEncoder, Files, new_intake, photo, row
from tests.stack import ROOT
from worker.embed_missing import embed_missing
from worker.encoder import Transform
from worker.fetcher import GuardedFetcher
from worker.imports.images import UrlImages
from worker.imports.intake import PHOTOS_AT_ONCE, Intake
from worker.imports.photo_line import BATCH_PHOTOS, READERS
from worker.imports.photo_work import PixelBudget

PIXELS = 40 * 30


class BrokenEncoder(CornerEncoder):
    """An encoder whose weights are damaged: one photo of a batch gets this embedding."""

    def __init__(self, embedding: Sequence[float]) -> None:
        super().__init__()
        self._embedding = embedding

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        embeddings = super().embed(pixels)
        embeddings[-1] = self._embedding
        return embeddings


class WatchedTransform(Transform):
    """A transform that tells of each photo when it is decoded and not yet scaled."""

    def __init__(self, watch: Callable[[], None]) -> None:
        super().__init__(**{field.name: getattr(TRANSFORM, field.name) for field in fields(TRANSFORM)})
        object.__setattr__(self, "watch", watch)

    def pixels(self, *arguments: Any) -> np.ndarray:
        self.watch()  # type: ignore[attr-defined]
        return super().pixels(*arguments)


class Crowd:
    """Photos that wait until there are two of them; keeps how many there were at most."""

    def __init__(self) -> None:
        self.peak = self._now = 0
        self._lock, self._two = Lock(), Barrier(2, timeout=10)

    def enter(self) -> None:
        with self._lock:
            self._now += 1
            self.peak = max(self.peak, self._now)
        self._two.wait()
        with self._lock:
            self._now -= 1


class PatientEncoder(CornerEncoder):
    """Goes on with the first batch only when the photos of the next one are decoded."""

    def __init__(self) -> None:
        self._decoded = Semaphore(0)
        self._first = Lock()
        super().__init__(WatchedTransform(self._decoded.release))

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        for _ in range(2 * BATCH_PHOTOS if self._first.acquire(blocking=False) else 0):
            assert self._decoded.acquire(timeout=10), "nothing is decoded meanwhile"
        return super().embed(pixels)


@pytest.fixture
def encoder() -> CornerEncoder:
    return CornerEncoder()


@pytest.fixture
def intake(tmp_path: Path, encoder: CornerEncoder) -> Intake:
    return new_intake(tmp_path, encoder)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process's memory is told by Linux")
def test_bug_all_decoded_photos_of_a_chunk_were_kept_until_its_last_row_was_read(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.photo_intake", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    # Decoded, the photos have 2,560 MiB; a group has 190, and glibc keeps some of what the threads gave back.
    assert int(done.stdout) < 1200


def test_photos_are_decoded_side_by_side_within_bounds(tmp_path: Path) -> None:
    crowd = Crowd()
    intake = new_intake(tmp_path, CornerEncoder(WatchedTransform(crowd.enter)), pixels_at_once=2 * PIXELS)
    files = {f"{n}": photo(40, 30, n) for n in range(8)}
    prepared = intake.prepare([row("many", *files), row("one", "0")], Files(files))
    assert len(prepared.vectors) == len(files)
    assert crowd.peak == 2


def test_a_larger_photo_is_decoded_alone_and_smaller_ones_do_not_pass_it() -> None:
    budget, order = PixelBudget(100), []

    def decode(name: str, pixels: int) -> None:
        with budget.taken(pixels):
            order.append(name)

    with ThreadPoolExecutor(2) as pool:
        with budget.taken(40):
            large = pool.submit(decode, "large", 200)
            assert not wait([large], timeout=0.2).done
            small = pool.submit(decode, "small", 10)
            assert not wait([small], timeout=0.2).done
            order.append("first")
        wait([large, small], timeout=20)
    assert order == ["first", "large", "small"]


def test_while_a_batch_is_embedded_the_next_photos_are_read_and_decoded(tmp_path: Path) -> None:
    encoder = PatientEncoder()
    files = {f"{n}": photo(40, 30, n) for n in range(2 * BATCH_PHOTOS)}
    prepared = new_intake(tmp_path, encoder).prepare([row("item", *files)], Files(files))
    assert len(prepared.vectors) == 2 * BATCH_PHOTOS
    assert encoder.batches == [BATCH_PHOTOS, BATCH_PHOTOS]


def test_the_images_of_an_item_keep_their_order(intake: Intake) -> None:
    files = {f"{n}": photo(40, 30, n) for n in range(16)}
    rows = [row(f"item{n}", *(f"{(n + step) % 16}" for step in range(16))) for n in range(5)]
    prepared = intake.prepare(rows, Files(files))
    alone = {name: intake.take([name], Files(files)).outcomes[0] for name in files}
    for number, (_, item) in enumerate(prepared.items):
        assert item.images == [alone[f"{(number + step) % 16}"] for step in range(16)]


def test_the_same_photo_of_many_rows_is_decoded_and_embedded_once(intake: Intake, encoder: CornerEncoder) -> None:
    prepared = intake.prepare([row(f"item{n}", "same") for n in range(20)], Files({"same": photo(40, 30)}))
    assert len(prepared.items) == 20
    assert encoder.batches == [1]


def test_a_row_whose_first_photo_is_missing_costs_no_other_read_and_leaves_no_embedding(intake: Intake) -> None:
    count = PHOTOS_AT_ONCE
    files = {f"good {n} {side}": photo(40, 30, 2 * n + side) for n in range(count) for side in range(2)}
    files |= {"second of a bad row": photo(40, 30, 999), "first of a bad row": photo(40, 30, 998)}
    source = Files(files)
    good = [row(f"item{n}", f"good {n} 0", f"good {n} 1") for n in range(count)]
    bad = [
        row("bad1", "nothing", "second of a bad row"),
        row("bad2", "first of a bad row", "nothing either", "nothing, once more"),
    ]
    prepared = intake.prepare([*bad, *good], source)

    assert [item.item_id for item, _ in prepared.rejected] == ["bad1", "bad2"]
    assert "nothing either" in prepared.rejected[1][1].detail, "the first of several reasons"
    assert "second of a bad row" not in source.read_names
    assert len(prepared.items) == count
    assert len(prepared.vectors) == 2 * count


def test_a_broken_photo_is_not_kept_and_the_others_of_its_group_are(intake: Intake, tmp_path: Path) -> None:
    files = {"good": photo(40, 30), "cut": photo(400, 300)[:-600]}
    prepared = intake.prepare([row("good", "good"), row("cut", "cut")], Files(files))
    assert [(item.item_id, error.code) for item, error in prepared.rejected] == [("cut", "image_broken")]
    kept = [path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert kept == [files["good"]]


@pytest.mark.parametrize("embedding", [[np.nan] * DIM, [np.inf, 0, 0, 0], [0] * DIM, [0.5, 0, 0, 0]])
def test_bug_an_embedding_that_no_index_can_hold_was_stored(tmp_path: Path, embedding: list[float]) -> None:
    intake = new_intake(tmp_path, BrokenEncoder(embedding))
    files = {f"{n}": photo(40, 30, n) for n in range(3)}
    with pytest.raises(Internal, match=r"Encoder corner .* can't be stored: every vector must have L2 norm 1"):
        intake.prepare([row("item", *files)], Files(files))


def test_bug_the_photos_of_one_item_were_fetched_one_after_the_other(intake: Intake) -> None:
    together = Barrier(READERS, timeout=10)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            together.wait()  # so a slow host costs its time twice for 16 photos, not 16 times
            self.send_response(200)
            self.end_headers()
            self.wfile.write(photo(40, 30, int(self.path[1:])))

        def log_message(self, *_: object) -> None:
            pass

    shop = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=shop.serve_forever)
    thread.start()
    try:
        urls = [f"http://127.0.0.1:{shop.server_port}/{number}" for number in range(2 * READERS)]
        fetcher = GuardedFetcher(allow_private=True, timeout_seconds=20)
        prepared = intake.prepare([row("item", *urls)], UrlImages(lambda url: fetcher.get(url, 10**6)))
    finally:
        shop.shutdown()
        thread.join()
        shop.server_close()
    assert prepared.rejected == []
    assert len(prepared.vectors) == 2 * READERS


def test_embedding_what_is_missing_passes_over_photos_that_are_gone_or_changed(
    intake: Intake, tmp_path: Path, caplog: pytest.LogCaptureFixture, encoder: CornerEncoder
) -> None:
    store = Store(str(tmp_path / "store"))
    catalogue = Catalogue(connect_database(f"sqlite:///{tmp_path}/lookalike.sqlite3"))
    hashes = store.put_images([photo(40, 30, n) for n in range(PHOTOS_AT_ONCE + 5)])
    gone, changed, broken = hashes[:3]
    path_of = {sha256: tmp_path / "store" / store.image_key(sha256) for sha256 in hashes}
    path_of[gone].unlink()
    path_of[changed].write_bytes(photo(40, 30, 5000))
    path_of[broken].write_bytes(b"no photo")
    with catalogue.change() as change:
        change.put([ItemChange(sha256, "", {}, [ImageRef(sha256, "image/jpeg")]) for sha256 in hashes])

    start = monotonic()
    embed_missing(catalogue, store, intake, max_seconds=20)
    assert monotonic() - start < 15, "it ends when there is nothing to embed any more"
    assert catalogue.embedded_images("corner", hashes) == set(hashes[3:])
    for sha256 in (gone, broken):
        assert f"Image {sha256} of the catalogue can't be embedded" in caplog.text
    assert sum(encoder.batches) == len(hashes) - 2


def kept_files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in (folder / "store").rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_camera_data_is_never_stored_and_the_same_photo_stays_one_image(tmp_path: Path, name: str) -> None:
    """A photo that comes again is known by its hash, so nothing is decoded, embedded or kept once more."""
    encoder = CornerEncoder()
    intake = new_intake(tmp_path, encoder)
    picture = taken(Image.new("RGB", (40, 30), "teal"), name)
    first = intake.prepare([row("a", "x"), row("b", "y")], Files({"x": picture, "y": picture}))
    assert first.rejected == []
    [kept] = kept_files(tmp_path)
    assert SECRET in picture
    assert SECRET not in kept
    assert {hashlib.sha256(kept).hexdigest()} == {ref.sha256 for _, item in first.items for ref in item.images or ()}

    with Catalogue(connect_database(f"sqlite:///{tmp_path}/lookalike.sqlite3")).change() as change:
        change.add_embeddings("corner", first.vectors)
    again = intake.prepare([row("a", "x")], Files({"x": picture}))
    assert [item.images for _, item in again.items] == [item.images for _, item in first.items[:1]]
    assert (sum(encoder.batches), again.vectors, kept_files(tmp_path)) == (1, {}, [kept])


def test_camera_data_is_kept_for_who_asks_for_it(tmp_path: Path) -> None:
    intake = new_intake(tmp_path, CornerEncoder(), keep_image_metadata=True)
    picture = taken(Image.new("RGB", (40, 30), "teal"), "JPEG")
    assert intake.prepare([row("a", "x")], Files({"x": picture})).rejected == []
    assert kept_files(tmp_path) == [picture]


def test_images_that_are_stored_with_camera_data_are_embedded_as_they_are(tmp_path: Path) -> None:
    """Those of earlier versions: their hash names them in the catalogue, so their bytes must stay."""
    intake = new_intake(tmp_path, CornerEncoder())
    catalogue = Catalogue(connect_database(f"sqlite:///{tmp_path}/lookalike.sqlite3"))
    store = Store(str(tmp_path / "store"))
    [sha256] = store.put_images([taken(Image.new("RGB", (40, 30), "teal"), "JPEG")])
    with catalogue.change() as change:
        change.put([ItemChange("old", "", {}, [ImageRef(sha256, "image/jpeg")])])
    assert embed_missing(catalogue, store, intake, max_seconds=20) == 1
    assert catalogue.embedded_images("corner", [sha256]) == {sha256}
    assert store.names("images") == [sha256[:2]]
