"""One search, from the photo to the hits; `Engine.search` reads top to bottom."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from redis import Redis

from shared.catalogue import Catalogue
from shared.errors import ItemNotFound
from shared.job_record import JobRecord, json_bytes
from shared.releases import Release
from shared.result_cache import CacheEntry, ResultCache, canonical
from shared.schemas import AnsweredFrom
from shared.settings import Settings
from shared.store import Store
from worker.embedder import Embedder, StillWanted
from worker.embedding_cache import embedding_key, from_bytes, to_bytes
from worker.encoder import Encoder
from worker.index.vector_index import Vectors
from worker.item_index import ItemIndex
from worker.similar_cache import SimilarCache
from worker.steps import Steps

ASKED = ("k", "min_score", "filter", "crop")


@dataclass(frozen=True)
class Answer:
    """What a search found: a SearchResult as JSON text, and what the caches shall keep of it."""

    result: bytes
    entries: Sequence[CacheEntry]


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
        asked = {name: job.parameters[name] for name in ASKED}
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
            return Answer(_from_cache(known_result, AnsweredFrom.RESULT_CACHE, steps), ())

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
            text = _from_cache(similar, AnsweredFrom.SIMILAR_RESULT_CACHE, steps)
            return Answer(text, self._entries(result_key, text, photo_key, query))

        hits, reason = self._find(query, asked, steps)
        result = {
            "hits": hits,
            "release": self.release.id,
            "catalogue_version": version,
            "answered_from": query.answered_from.value,
            "reason": reason,
            "timings_ms": steps.total(),
        }
        if photo_key:
            self._similar.put(scope, query.embeddings, result)
        text = json_bytes(result)
        return Answer(text, self._entries(result_key, text, photo_key, query))

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
            photo = self._store.image(hashes[0])
            return Query(self.embedder.embed(photo, crop, steps, still_wanted), AnsweredFrom.ENGINE, item_id)
        vectors = self._catalogue.embeddings(self.encoder.id, hashes)
        if not vectors:
            raise ItemNotFound(f"Item {item_id!r} has no image that can be searched with.", item_id=item_id)
        stacked = np.stack([np.frombuffer(vector, dtype="<f4") for vector in vectors.values()])  # (n, dim)
        return Query(stacked.astype(np.float32), AnsweredFrom.ENGINE, item_id)

    def _find(
        self, query: Query, asked: Mapping[str, Any], steps: Steps, again: bool = True
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Return the hits as JSON values, or no hits and the reason."""
        allowed = self.live_index.allowed(asked["filter"])
        nearest = self.live_index.nearest_items(query.embeddings, asked["k"], allowed, query.item_id)
        steps.lap("search")
        if not nearest:
            if len(self.live_index) == 0:
                return [], "catalogue_empty"
            return [], "no_similar_item" if allowed is None else "no_item_matches_filter"
        min_score = asked["min_score"]
        kept = nearest if min_score is None else [(row, score) for row, score in nearest if score >= min_score]
        if not kept:
            return [], "all_below_min_score"
        told = self.live_index.hits([row for row, _ in kept])
        if again and len(told) < len(kept):
            # An image was replaced, or its item deleted, since the refresh: what is there instead is found as well.
            self.live_index.refresh()
            return self._find(query, asked, steps, again=False)
        hits: list[dict[str, Any]] = []
        for row, score in kept:
            if row in told:  # an item may be deleted between search and reading
                item, link = told[row]
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
        steps.lap("hits")
        return hits, None if hits else "no_similar_item"


def _from_cache(known: Mapping[str, Any], answered_from: AnsweredFrom, steps: Steps) -> bytes:
    return json_bytes({**known, "answered_from": answered_from.value, "timings_ms": steps.total()})
