"""One search, from the photo to the hits; `Engine.search` reads top to bottom."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
from redis import Redis

from shared.catalogue import Catalogue
from shared.errors import ImageNotFound, ItemNotFound
from shared.job_record import JobRecord, json_bytes
from shared.releases import Release
from shared.result_cache import CacheEntry, ResultCache, asked_of, canonical
from shared.schemas import AnsweredFrom
from shared.settings import Settings
from shared.store import Store
from worker.embedder import Embedder, StillWanted
from worker.embedding_cache import embedding_key, from_bytes, to_bytes
from worker.encoder import Encoder
from worker.finder import Finder
from worker.index.vector_index import Vectors
from worker.indexed_images import embeddings_of_items
from worker.item_index import ItemIndex
from worker.similar_cache import SimilarCache
from worker.steps import Steps


@dataclass(frozen=True)
class Answer:
    """What a search found: a SearchResult as JSON text, and what the caches shall keep of it."""

    result: bytes
    entries: Sequence[CacheEntry]
    answered_from: AnsweredFrom
    timings_ms: Mapping[str, float]


@dataclass(frozen=True)
class Query:
    """What is searched with."""

    embeddings: Vectors  # (n, dim)
    answered_from: AnsweredFrom
    item_id: str | None = None


class Engine:
    """Answers searches with one release: an encoder, an index, their caches. Shared by all threads of a worker.

    It never changes its release: another one is another engine, so a search can't mix two of them.
    """

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        catalogue: Catalogue,
        store: Store,
        release: Release,
        encoder: Encoder,
        live_index: ItemIndex[Any],
        fetch: Callable[[str, int], bytes],
    ) -> None:
        """Args:
        settings: limits, and how long caches keep what.
        redis: the caches that all workers share.
        catalogue: items and attributes.
        store: images of items.
        release: named in results; knows from which cosine on two embeddings share one.
        encoder: of the release.
        live_index: of that encoder's embeddings.
        fetch: gets an image by URL, of so many bytes at most.
        """
        self.release = release
        self.encoder = encoder
        self.live_index = live_index
        self._settings = settings
        self._redis = redis
        self._results = ResultCache(redis, settings.cache_ttl_seconds)
        self._catalogue = catalogue
        self._store = store
        self.embedder = Embedder(encoder, settings)
        wanted = settings.similar_min_cosine
        min_cosine = release.min_cosine if wanted is None else wanted
        self._similar = SimilarCache(encoder.dim, min_cosine, settings.cache_ttl_seconds)
        self._finder = Finder(catalogue, live_index, release.min_cosine)
        self._fetch = fetch

    def search(self, job: JobRecord, image: bytes | None, still_wanted: StillWanted) -> Answer:
        """Answer a search job.

        Args:
            job: of kind search; its parameters are as web/searches.py writes them.
            image: the uploaded photo, where the job has one.
            still_wanted: called now and then while the photo waits for the model.

        Raises:
            LookalikeError: if the photo can't be used, or the filter or the item is not there any more.
            Exception: what `still_wanted` raises.
        """
        steps = Steps(job.created_at)
        asked = asked_of(job.parameters)
        source, use_caches = job.parameters["source"], job.parameters["use_caches"]
        version = self.live_index.refresh()
        steps.lap("refresh")

        if "image_url" in source:
            image = self._fetch(source["image_url"], self._settings.upload_max_bytes)
            source = {"sha256": hashlib.sha256(image).hexdigest()}
            steps.lap("fetch")
        name, value = next(iter(source.items()))
        result_key = ResultCache.key(self.release.id, version, f"{name}:{value}", asked)
        photo_key = embedding_key(self.encoder.id, value, asked["crop"]) if name == "sha256" else None
        known_result, known_embedding = self._look_up(result_key, photo_key, steps) if use_caches else (None, None)
        if known_result is not None:
            return _cached(known_result, AnsweredFrom.RESULT_CACHE, steps)

        if photo_key is None:
            query = self._item_query(value, asked["crop"], steps, still_wanted)
        elif known_embedding is not None:
            query = Query(known_embedding, AnsweredFrom.EMBEDDING_CACHE)
        else:
            once = photo_key if use_caches else None
            query = self._photo_query(image or b"", asked["crop"], once, steps, still_wanted)
        scope = (version, canonical(asked))
        similar = self._similar.get(scope, query.embeddings) if use_caches and photo_key else None
        if similar is not None:
            answer = _cached(similar, AnsweredFrom.SIMILAR_RESULT_CACHE, steps)
            return replace(answer, entries=self._entries(result_key, answer.result, photo_key, query))

        hits, reason = self.find(query, asked, steps)
        timings_ms = steps.total()
        result = {
            "hits": hits,
            "release": self.release.id,
            "catalogue_version": version,
            "answered_from": query.answered_from.value,
            "reason": reason,
            "timings_ms": timings_ms,
        }
        if photo_key:
            self._similar.put(scope, query.embeddings, result)
        text = json_bytes(result)
        return Answer(text, self._entries(result_key, text, photo_key, query), query.answered_from, timings_ms)

    def _look_up(
        self, result_key: str, photo_key: str | None, steps: Steps
    ) -> tuple[dict[str, Any] | None, Vectors | None]:
        """Ask both caches in one round trip."""
        if not self._settings.cache_ttl_seconds:
            return None, None
        keys = [result_key, photo_key] if photo_key else [result_key]
        result, *embedding = cast("list[bytes | None]", self._redis.mget(keys))
        steps.lap("lookup")
        known = from_bytes(embedding[0]) if embedding and embedding[0] is not None else None
        return (None if result is None else json.loads(result)), known

    def _entries(self, result_key: str, result: bytes, photo_key: str | None, query: Query) -> list[CacheEntry]:
        """Return what the caches do not have yet; it is written together with the end of the job."""
        entries = list(self._results.entries(result_key, result))
        seconds = self._settings.cache_ttl_seconds
        if seconds and photo_key and query.answered_from is AnsweredFrom.ENGINE:
            entries.append(CacheEntry(photo_key, to_bytes(query.embeddings), seconds))
        return entries

    def _photo_query(
        self, photo: bytes, crop: dict[str, Any] | None, once: str | None, steps: Steps, still_wanted: StillWanted
    ) -> Query:
        """Search with a photo, which is embedded once for all who ask under the same key at once."""
        if once is None:
            return Query(self.embedder.embed(photo, crop, steps, still_wanted), AnsweredFrom.ENGINE)
        embedding, was_made = self.embedder.embed_once(once, photo, crop, steps, still_wanted)
        return Query(embedding, AnsweredFrom.ENGINE if was_made else AnsweredFrom.EMBEDDING_CACHE)

    def _item_query(self, item_id: str, crop: dict[str, Any] | None, steps: Steps, still_wanted: StillWanted) -> Query:
        """Search with all images of an item, as they were embedded; with a crop, with that part of the first one."""
        hashes = [image.sha256 for image in self._catalogue.item(item_id).images]
        if crop and hashes:
            try:
                photo = self._store.image(hashes[0])
            except FileNotFoundError:
                raise ImageNotFound(f"The image of item {item_id!r} is not in the store; import it again.") from None
            return Query(self.embedder.embed(photo, crop, steps, still_wanted), AnsweredFrom.ENGINE, item_id)
        vectors = self._catalogue.embeddings(self.encoder.id, hashes)
        if not vectors:
            raise ItemNotFound(f"Item {item_id!r} has no image that can be searched with.", item_id=item_id)
        return _item_query(item_id, vectors.values())

    def item_queries(self, item_ids: Sequence[str]) -> dict[str, Query]:
        """Return what to search with for each of those items that is searched with whole; one read for all."""
        found = embeddings_of_items(self._catalogue, self.encoder.id, item_ids)
        return {item_id: _item_query(item_id, vectors) for item_id, vectors in found.items()}

    def query(self, source: Mapping[str, str], crop: dict[str, Any] | None, still_wanted: StillWanted) -> Query:
        """Return what to search with, asking no cache.

        Args:
            source: `image_url` or `item_id`.
            crop: the part of the photo, or of the item's first image.
            still_wanted: called now and then while a photo waits for the model.

        Raises:
            LookalikeError: if the photo can't be used, or there is no such item.
            Exception: what `still_wanted` raises.
        """
        steps = Steps(datetime.now(UTC))
        if "item_id" in source:
            return self._item_query(source["item_id"], crop, steps, still_wanted)
        photo = self._fetch(source["image_url"], self._settings.upload_max_bytes)
        return self._photo_query(photo, crop, None, steps, still_wanted)

    def find(
        self, query: Query, asked: Mapping[str, Any], steps: Steps | None = None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Return the hits of a query, or no hits and the reason; see `Finder.find`."""
        steps = steps or Steps(datetime.now(UTC))
        return self._finder.find(query.embeddings, query.item_id, asked, steps)


def _item_query(item_id: str, vectors: Iterable[bytes]) -> Query:
    stacked = np.stack([np.frombuffer(vector, dtype="<f4") for vector in vectors])  # (n, dim)
    return Query(stacked.astype(np.float32), AnsweredFrom.ENGINE, item_id)


def _cached(known: Mapping[str, Any], answered_from: AnsweredFrom, steps: Steps) -> Answer:
    timings_ms = steps.total()
    result = json_bytes({**known, "answered_from": answered_from.value, "timings_ms": timings_ms})
    return Answer(result, (), answered_from, timings_ms)
