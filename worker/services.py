"""The parts that a worker process is made of, each created when it is first used, after the fork.

What needs numpy, FAISS or Pillow is imported there as well: beat, the callbacks worker and every health check import
this module and need none of them.
"""

import logging
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING

from redis import Redis

from shared.catalogue import Catalogue
from shared.database import connect_database
from shared.jobs import Jobs
from shared.redis_client import connect_redis
from shared.result_cache import ResultCache
from shared.settings import Settings
from shared.store import Store
from worker.fetch_turns import FetchTurns
from worker.fetcher import GuardedFetcher
from worker.heartbeat import Leases
from worker.release import Release, activate_release

if TYPE_CHECKING:
    from worker.encoder import Encoder
    from worker.engine import Engine
    from worker.imports.intake import Intake
    from worker.live_index import LiveIndex

log = logging.getLogger(__name__)

FETCHING_TASKS = 8  # half of a search worker's threads


class Services:
    """What tasks work with. The encoder and the engine are only loaded by workers whose tasks need them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._loading = Lock()
        self._encoder: Encoder | None = None
        self._engine: Engine | None = None
        self.live_index: LiveIndex | None = None
        self.fetch_turns = FetchTurns(FETCHING_TASKS)

    @cached_property
    def redis(self) -> Redis:
        """Connections to Redis."""
        return connect_redis(self.settings)

    @cached_property
    def jobs(self) -> Jobs:
        """The job records."""
        return Jobs(self.redis, self.settings)

    @cached_property
    def leases(self) -> Leases:
        """The leases of the jobs at hand."""
        return Leases(self.jobs, self.settings.job_lease_seconds)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The catalogue database."""
        return Catalogue(connect_database(self.settings.database_url))

    @cached_property
    def store(self) -> Store:
        """Images and uploaded files."""
        return Store(self.settings.store_url)

    @cached_property
    def fetcher(self) -> GuardedFetcher:
        """The one way to an image that a client names by URL."""
        return GuardedFetcher(self.settings.allow_private_urls, self.settings.fetch_timeout_seconds)

    @cached_property
    def callback_fetcher(self) -> GuardedFetcher:
        """The same for callbacks, which have a time limit of their own."""
        return GuardedFetcher(self.settings.allow_private_urls, self.settings.webhook_timeout_seconds)

    @cached_property
    def encoder_id(self) -> str:
        """Id of the configured encoder, without loading it."""
        from worker.encoder import encoder_id

        return encoder_id(self.settings.encoder, self.settings.encoder_weights_path)

    @cached_property
    def intake(self) -> "Intake":
        """Takes in photos; the only one, so that all threads together keep within its bounds."""
        from worker.imports.intake import Intake

        return Intake(self.settings, self.catalogue, self.store, self.encoder_id, lambda: self.encoder)

    @property
    def encoder(self) -> "Encoder":
        """The encoder; the first use loads the model."""
        from worker.encoder import load_encoder

        with self._loading:
            if self._encoder is None:
                settings = self.settings
                self._encoder = load_encoder(settings.encoder, settings.encoder_weights_path, settings.encoder_threads)
            return self._encoder

    def load_engine(self) -> "Engine":
        """Return the search engine; the first call loads the encoder, fills the index and activates the release."""
        encoder = self.encoder
        with self._loading:
            if self._engine is None:
                self._engine = self._create_engine(encoder)
            return self._engine

    def _create_engine(self, encoder: "Encoder") -> "Engine":
        from worker.embedding_cache import EmbeddingCache
        from worker.engine import Engine
        from worker.index.flat_index import FlatIndex
        from worker.live_index import LiveIndex
        from worker.similar_cache import SimilarCache

        settings = self.settings
        release = Release(encoder.id, FlatIndex.kind)
        activate_release(self.catalogue, release, encoder.manifest)
        self.live_index = LiveIndex(self.catalogue, FlatIndex(encoder.dim), encoder.id)
        self.live_index.refresh()
        log.info("Serving release %s with %d images", release.id, len(self.live_index.index))
        return Engine(
            settings=settings,
            catalogue=self.catalogue,
            store=self.store,
            encoder=encoder,
            live_index=self.live_index,
            release_id=release.id,
            results=ResultCache(self.redis, settings.cache_ttl_seconds),
            embeddings=EmbeddingCache(self.redis, encoder.id, settings.cache_ttl_seconds),
            similar=SimilarCache(self.redis, encoder.dim, settings.similar_min_cosine, settings.cache_ttl_seconds),
            fetch=self.fetcher.get,
        )
