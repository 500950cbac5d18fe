"""Photos on their way from where they lie to embeddings: read, decoded, kept and embedded side by side."""

import math
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import numpy as np

from shared.catalogue_change import ImageRef
from shared.errors import LookalikeError
from worker.imports.images import ImageSource, is_url
from worker.imports.photo_work import Photo, PhotoWork

READERS = 8  # photos by URL mostly wait for the network
DECODERS = 4  # of which some wait for the disk
PHOTOS_AT_ONCE = 32  # whose files, or pixels for the network, are in memory together
TOGETHER = 8  # files that one thread reads, or decodes and syncs: threads that take turns cost more than the work
BATCH_PHOTOS = 16  # of one forward pass

Place = TypeVar("Place", bound=Hashable)
Thing = TypeVar("Thing")
Outcome = ImageRef | LookalikeError


class PhotoLine(Generic[Place]):
    """One pass over some photos, with a few of them at each station; used once, by one thread.

    While the network embeds a batch, the photos behind it are decoded and kept, and those behind them are read. Who
    is done goes on, whoever came first: a slow host delays its own photos only.

    Attributes:
        vectors: new embeddings, little-endian float32, by image hash; complete when `run` has ended.
    """

    def __init__(self, work: PhotoWork, source: ImageSource) -> None:
        self._work = work
        self._source = source
        self.vectors: dict[str, bytes] = {}
        self._done: SimpleQueue[tuple[Callable[[Any, Future[Any]], None], Any, Future[Any]]] = SimpleQueue()
        self._places: dict[str, list[Place]] = {}  # of each photo that is not decoded or kept yet
        self._settled: dict[str, Outcome] = {}
        self._outcomes: deque[tuple[Place, Outcome]] = deque()
        self._read: list[Photo] = []
        self._pixels: list[tuple[str, np.ndarray]] = []
        self._reading = self._decoding = self._embedding = 0

    def run(self, wanted: Iterator[tuple[Place, str]]) -> Iterator[tuple[Place, Outcome]]:
        """Take photos in.

        Args:
            wanted: a place and a reference for each photo; asked for the next one only when there is room for it.

        Yields:
            For each place, in the order in which they are settled, where the photo is kept or why it can't be used.
            One that is kept is not embedded yet.
        """
        with ExitStack() as stack:
            readers, decoders, network = (
                stack.enter_context(ThreadPoolExecutor(threads)) for threads in (READERS, DECODERS, 1)
            )
            for pool in (readers, decoders, network):
                stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            while True:
                self._fill(wanted, readers)
                self._look_up(decoders)
                self._batch(network)
                if not self._reading + self._decoding + self._embedding:
                    return
                self._wait()
                while self._outcomes:
                    yield self._outcomes.popleft()

    def _submit(self, pool: Executor, task: Callable[..., Any], argument: Any, then: Any, context: Any) -> None:
        future = pool.submit(task, argument)
        future.add_done_callback(lambda done: self._done.put((then, context, done)))

    def _wait(self) -> None:
        """Wait for one task; then take all that are done."""
        while True:
            then, context, future = self._done.get()
            then(context, future)
            if self._done.empty():
                return

    def _fill(self, wanted: Iterator[tuple[Place, str]], readers: Executor) -> None:
        """Have further photos read as long as there is room."""
        room = PHOTOS_AT_ONCE - self._reading - len(self._read) - self._decoding - len(self._pixels)
        if self._reading and room < TOGETHER:
            return
        new = list(islice(wanted, room))
        files = [(place, reference) for place, reference in new if not is_url(reference)]
        # Each URL by itself, since its host may be slow; of files, many.
        urls = [[(place, reference)] for place, reference in new if is_url(reference)]
        for part in [*urls, *_parts(files, TOGETHER)]:
            places, references = zip(*part, strict=True)
            self._reading += len(part)
            self._submit(readers, self._read_photos, references, self._has_read, places)

    def _read_photos(self, references: Sequence[str]) -> list[Photo | LookalikeError]:
        return self._work.read(references, self._source)

    def _has_read(self, places: Sequence[Place], future: Future[list[Photo | LookalikeError]]) -> None:
        self._reading -= len(places)
        for place, photo in zip(places, future.result(), strict=True):
            if isinstance(photo, LookalikeError):
                self._outcomes.append((place, photo))
            elif photo.ref.sha256 in self._settled:
                self._outcomes.append((place, self._settled[photo.ref.sha256]))
            elif photo.ref.sha256 in self._places:
                self._places[photo.ref.sha256].append(place)
            else:
                self._places[photo.ref.sha256] = [place]
                self._read.append(photo)

    def _look_up(self, decoders: Executor) -> None:
        """Have the photos decoded that have no embedding, many for each question to the database."""
        is_worth_it = len(self._read) >= BATCH_PHOTOS or not (self._reading and self._decoding)
        if not self._read or not is_worth_it:
            return
        known = self._work.known([photo.ref.sha256 for photo in self._read])
        for is_known, task in ((True, self._work.keep), (False, self._work.decode_and_keep)):
            photos = [photo for photo in self._read if (photo.ref.sha256 in known) is is_known]
            for part in _parts(photos, min(TOGETHER, math.ceil(len(photos) / DECODERS))):
                self._decoding += len(part)
                self._submit(decoders, task, part, self._has_kept, [photo.ref for photo in part])
        self._read.clear()

    def _has_kept(self, refs: list[ImageRef], future: Future[list[np.ndarray | LookalikeError | None]]) -> None:
        self._decoding -= len(refs)
        for ref, result in zip(refs, future.result(), strict=True):
            if isinstance(result, np.ndarray):
                self._pixels.append((ref.sha256, result))
            outcome = result if isinstance(result, LookalikeError) else ref
            self._settled[ref.sha256] = outcome
            self._outcomes.extend((place, outcome) for place in self._places.pop(ref.sha256))

    def _batch(self, network: Executor) -> None:
        """Have the network embed a full batch when it is free, or the last ones."""
        is_full = len(self._pixels) >= BATCH_PHOTOS or not (self._reading or self._read or self._decoding)
        if self._embedding or not self._pixels or not is_full:
            return
        batch, self._pixels = self._pixels[:BATCH_PHOTOS], self._pixels[BATCH_PHOTOS:]
        hashes, pixels = zip(*batch, strict=True)
        self._embedding = 1
        self._submit(network, self._embed, pixels, self._has_embedded, hashes)

    def _embed(self, pixels: Collection[np.ndarray]) -> np.ndarray:
        return self._work.embed(np.stack(list(pixels)))

    def _has_embedded(self, hashes: Collection[str], future: Future[np.ndarray]) -> None:
        self._embedding = 0
        rows = future.result().astype("<f4", copy=False)  # (n, dim)
        self.vectors |= {sha256: row.tobytes() for sha256, row in zip(hashes, rows, strict=True)}


def _parts(things: list[Thing], size: int) -> Iterator[list[Thing]]:
    """Cut a list in parts of so many things at most."""
    for start in range(0, len(things), size or 1):
        yield things[start : start + size]
