"""One search, from the photo to the hits; `Engine.search` reads top to bottom."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import BoundedSemaphore
from typing import Any

import numpy as np

from shared.catalogue import Catalogue
from shared.errors import ItemNotFound
from shared.filters import compile_filter
from shared.job_record import JobRecord
from shared.result_cache import ResultCache
from shared.schemas import AnsweredFrom, Crop
from shared.settings import Settings
from shared.store import Store
from worker.decode import decode_image
from worker.embedding_cache import EmbeddingCache
from worker.encoder import Encoder
from worker.index.vector_index import Rows, Vectors
from worker.live_index import LiveIndex
from worker.similar_cache import SimilarCache

ASKED = ("k", "min_score", "filter", "crop")
# Each may take up to 16 bytes a pixel while it is decoded; more at once would not be faster.
PHOTOS_AT_ONCE = 4


class Steps:
    """A stopwatch for the steps of one search, in milliseconds."""

    def __init__(self, created_at: datetime) -> None:
        self._created_at = created_at
        self.timings_ms: dict[str, float] = {"queue": self._since_creation()}

    def _since_creation(self) -> float:
        return round((datetime.now(UTC) - self._created_at).total_seconds() * 1000, 3)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Add what the block takes to the step's time."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = (time.perf_counter() - start) * 1000
            self.timings_ms[name] = round(self.timings_ms.get(name, 0.0) + elapsed, 3)

    def total(self) -> dict[str, float]:
        """Return all steps, and the time from the job's creation until now."""
        return {**self.timings_ms, "total": self._since_creation()}


@dataclass
class Query:
    """What is searched with."""

    embeddings: Vectors  # (n, dim)
    answered_from: AnsweredFrom
    item_id: str | None = None


class Engine:
    """Answers searches; shared by all threads of a search worker."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        store: Store,
        encoder: Encoder,
        live_index: LiveIndex,
        release_id: str,
        results: ResultCache,
        embeddings: EmbeddingCache,
        similar: SimilarCache,
        fetch: Callable[[str, int], bytes],
    ) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._store = store
        self._encoder = encoder
        self._live_index = live_index
        self._release_id = release_id
        self._results = results
        self._embeddings = embeddings
        self._similar = similar
        self._fetch = fetch
        self._decoding = BoundedSemaphore(PHOTOS_AT_ONCE)

    def search(self, job: JobRecord, image: bytes | None) -> dict[str, Any]:
        """Answer a search job.

        Args:
            job: of kind search; its parameters are as web/searches.py writes them.
            image: the uploaded photo, where the job has one.

        Returns:
            A SearchResult as JSON values.

        Raises:
            LookalikeError: if the photo can't be used, or the filter or the item is not there any more.
        """
        steps = Steps(job.created_at)
        asked = {name: job.parameters[name] for name in ASKED}
        source, use_caches = job.parameters["source"], job.parameters["use_caches"]
        with steps.time("refresh"):
            version = self._live_index.refresh()

        if "image_url" in source:
            with steps.time("fetch"):
                image = self._fetch(source["image_url"], self._settings.upload_max_bytes)
                source = {"sha256": hashlib.sha256(image).hexdigest()}
        name, value = next(iter(source.items()))
        key = ResultCache.key(self._release_id, version, f"{name}:{value}", asked)
        if use_caches and (known := self._results.get(key)):
            return _from_cache(known, AnsweredFrom.RESULT_CACHE, steps)

        if "item_id" in source:
            query = self._item_query(source["item_id"], asked["crop"], steps)
        else:
            query = self._photo_query(source["sha256"], image or b"", asked["crop"], use_caches, steps)
        scope = SimilarCache.scope(self._release_id, version, asked)
        is_photo = query.item_id is None
        if use_caches and is_photo and (known := self._similar.get(scope, query.embeddings)):
            self._results.put(key, known)
            return _from_cache(known, AnsweredFrom.SIMILAR_RESULT_CACHE, steps)

        with steps.time("search"):
            hits, reason = self._find(query, asked)
        result = {
            "hits": hits,
            "release": self._release_id,
            "catalogue_version": version,
            "answered_from": query.answered_from.value,
            "reason": reason,
            "timings_ms": steps.total(),
        }
        self._results.put(key, result)
        if is_photo:
            self._similar.put(scope, query.embeddings, result)
        return result

    def embed(self, photo: bytes, crop: dict[str, Any] | None, steps: Steps) -> Vectors:
        """Decode a photo and return its embedding, float32 (1, dim)."""
        with self._decoding:
            with steps.time("decode"):
                upright = decode_image(
                    photo,
                    max_bytes=self._settings.upload_max_bytes,
                    max_pixels=self._settings.image_max_pixels,
                    crop=Crop.model_validate(crop) if crop else None,
                )
            with steps.time("embed"):
                return self._encoder.encode([upright])

    def _photo_query(
        self, sha256: str, photo: bytes, crop: dict[str, Any] | None, use_caches: bool, steps: Steps
    ) -> Query:
        if use_caches and (known := self._embeddings.get(sha256, crop)) is not None:
            return Query(known, AnsweredFrom.EMBEDDING_CACHE)
        embedding = self.embed(photo, crop, steps)
        self._embeddings.put(sha256, crop, embedding)
        return Query(embedding, AnsweredFrom.ENGINE)

    def _item_query(self, item_id: str, crop: dict[str, Any] | None, steps: Steps) -> Query:
        """Search with all images of an item, as they were embedded; with a crop, with that part of the first one."""
        hashes = [image.sha256 for image in self._catalogue.item(item_id).images]
        if crop and hashes:
            return Query(self.embed(self._store.image(hashes[0]), crop, steps), AnsweredFrom.ENGINE, item_id)
        vectors = self._catalogue.embeddings(self._encoder.id, hashes)
        if not vectors:
            raise ItemNotFound(f"Item {item_id!r} has no image that can be searched with.", item_id=item_id)
        stacked = np.stack([np.frombuffer(vector, dtype="<f4") for vector in vectors.values()])  # (n, dim)
        return Query(stacked.astype(np.float32), AnsweredFrom.ENGINE, item_id)

    def _find(self, query: Query, asked: dict[str, Any]) -> tuple[list[dict[str, Any]], str | None]:
        """Return the hits as JSON values, or no hits and the reason."""
        if len(self._live_index.index) == 0:
            return [], "catalogue_empty"
        allowed = self._allowed_rows(asked["filter"])
        if allowed is not None and len(allowed) == 0:
            return [], "no_item_matches_filter"
        nearest = self._live_index.nearest_items(query.embeddings, asked["k"], allowed, query.item_id)
        if not nearest:
            return [], "no_similar_item" if allowed is None else "no_item_matches_filter"
        min_score = asked["min_score"]
        kept = [(row, score) for row, score in nearest if min_score is None or score >= min_score]
        if not kept:
            return [], "all_below_min_score"
        rows = self._catalogue.hit_rows([row for row, _ in kept])
        hits: list[dict[str, Any]] = []
        for row, score in kept:
            if row in rows:  # an item may be deleted between search and reading
                item, link = rows[row]
                hits.append(
                    {
                        "rank": len(hits) + 1,
                        "item_id": item.item_id,
                        "score": round(score, 6),
                        "title": item.title,
                        "attributes": item.attributes,
                        "image_url": link,
                    }
                )
        return hits, None if hits else "no_similar_item"

    def _allowed_rows(self, condition: dict[str, Any] | None) -> Rows | None:
        if not condition:
            return None
        compiled = compile_filter(condition, self._catalogue.attribute_types())
        return np.array(self._catalogue.image_rows(compiled), dtype=np.int64)


def _from_cache(known: dict[str, Any], answered_from: AnsweredFrom, steps: Steps) -> dict[str, Any]:
    return {**known, "answered_from": answered_from.value, "timings_ms": steps.total()}
