"""The parts that a worker process is made of, each created when it is first used, after the fork.

What needs numpy, FAISS or Pillow is imported there as well: beat, the callbacks worker and every health check import
this module and need none of them.
"""

import gc
import logging
from functools import cached_property, partial
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from shared.accepted_imports import AcceptedImports
from shared.catalogue import Catalogue
from shared.database import connect_database
from shared.errors import IndexUnavailable
from shared.jobs import Jobs
from shared.queues import SEARCH, queue_key
from shared.redis_client import connect_redis
from shared.settings import Settings
from shared.step_times import StepTimes
from shared.store import Store
from worker.active_release import ActiveRelease
from worker.backlog import Backlog
from worker.callback_endpoints import CallbackEndpoints
from worker.fetcher import GuardedFetcher
from worker.heartbeat import Leases
from worker.job_traces import JobTraces
from worker.replaced_engine import is_collected
from worker.turns import Turns

if TYPE_CHECKING:
    from shared.releases import Release
    from worker.engine import Engine
    from worker.imports.intake import Intake
    from worker.milvus.connection import MilvusConnection

log = logging.getLogger(__name__)

SEARCH_THREADS = 16  # as in the Procfile
FETCHING_TASKS = SEARCH_THREADS // 2
RETRY_SECONDS = 30  # after a release that could not be opened


class Services:
    """What tasks work with. The encoder and the engine are only loaded by workers whose tasks need them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._making_intake = Lock()
        self._intake: tuple[dict[str, Any], Intake] | None = None  # with the manifest of its encoder
        self._engine: Engine | None = None
        self._opening_engine = Lock()
        self.fetch_turns = Turns(FETCHING_TASKS)
        self.turn_alone = Turns(1)
        self.step_times = StepTimes()
        self.job_traces = JobTraces(settings)

    @cached_property
    def redis(self) -> Redis:
        """Connections to Redis."""
        return connect_redis(self.settings)

    @cached_property
    def jobs(self) -> Jobs:
        """The job records."""
        return Jobs(self.redis, self.settings)

    @cached_property
    def backlog(self) -> Backlog:
        """What waits on the search queue."""
        return Backlog(self.redis, queue_key(SEARCH), SEARCH_THREADS)

    @cached_property
    def leases(self) -> Leases:
        """The leases of the jobs at hand."""
        return Leases(self.jobs, self.settings.job_lease_seconds)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The catalogue database."""
        return Catalogue(connect_database(self.settings.database_url))

    @cached_property
    def accepted_imports(self) -> AcceptedImports:
        """The imports that have not ended."""
        return AcceptedImports(self.catalogue.engine, self.redis, self.settings)

    @cached_property
    def store(self) -> Store:
        """Images and uploaded files."""
        return Store(self.settings.store_url)

    @cached_property
    def fetcher(self) -> GuardedFetcher:
        """The one way to an image that a client names by URL."""
        return GuardedFetcher(self.settings.allow_private_urls, self.settings.fetch_timeout_seconds)

    @cached_property
    def endpoints(self) -> CallbackEndpoints:
        """What is known of those who take callbacks."""
        return CallbackEndpoints(self.redis)

    @cached_property
    def callback_fetcher(self) -> GuardedFetcher:
        """The same for callbacks, which have a time limit of their own."""
        return GuardedFetcher(self.settings.allow_private_urls, self.settings.webhook_timeout_seconds)

    @cached_property
    def active(self) -> ActiveRelease:
        """The active release and its encoder."""
        return ActiveRelease(self.catalogue, self.store, self.settings)

    @cached_property
    def milvus(self) -> "MilvusConnection | None":
        """The connection to Milvus, where the settings name one. Only search workers ask for it."""
        from worker.item_indexes import connect_milvus

        return connect_milvus(self.settings)

    @property
    def intake(self) -> "Intake":
        """Takes in photos for the active release; all threads share one, and so keep within its bounds together.

        Ask for it anew in each task: it is another one when another release has become active.
        """
        from worker.imports.intake import Intake

        release = self.active.current()
        encoder = release.manifest["encoder"]  # the same id may come to run on another runtime
        with self._making_intake:
            if self._intake is None or self._intake[0] != encoder:
                open_encoder = partial(self.active.encoder, release)
                intake = Intake(self.settings, self.catalogue, self.store, release.encoder_id, open_encoder)
                self._intake = encoder, intake
            return self._intake[1]

    @property
    def engine(self) -> "Engine":
        """The search engine of the active release. A search keeps the one it began with."""
        if self._engine is None:
            raise RuntimeError("this worker does not take searches; load_engine comes first")
        return self._engine

    def load_engine(self) -> bool:
        """Open the encoder of the active release and fill its index; returns False if that was done already.

        Raises:
            EncoderUnavailable: if the encoder can't be had; the message tells the remedy.
            IndexUnavailable: if the index is in Milvus, and that can't be reached.
            SQLAlchemyError: if the catalogue can't be read.
        """
        release = self.active.current()
        if self._engine is not None and self._engine.release == release:
            return False
        is_first = self._engine is None
        self._engine = self._create_engine(release)
        if is_first:
            gc.collect()
            gc.freeze()  # what stays need not be looked through again with every collection
        return True

    def current_engine(self) -> "Engine":
        """Return the engine of the release that is active now, for workers that search now and then.

        It is opened when it is first asked for, and anew when another release has become active. Its index is as it was
        last refreshed.

        Raises:
            EncoderUnavailable: if the encoder can't be had; the message tells the remedy.
            IndexUnavailable: if the index can't be reached, or not from this worker.
        """
        if self.settings.index_url is not None and "://" not in self.settings.index_url:
            raise IndexUnavailable(
                "The index is in milvus-lite's file, which the search worker alone may have open: batch searches, and "
                "looking for near-duplicates, need FAISS, or Milvus as a server."
            )
        with self._opening_engine:
            release = self.active.current()
            if self._engine is None or self._engine.release != release:
                has_replaced = self._engine is not None
                self._engine = self._create_engine(release)
                if has_replaced:
                    gc.collect()  # an index and what belongs to it refer to each other
            return self._engine

    def follow_catalogue(self, stopped: Event) -> Thread:
        """Keep the engine in step with the catalogue in the background, until `stopped` is set.

        Another release is opened beside the present one, which answers until then and goes when its last search ends.
        """
        from worker.encoder import EncoderUnavailable

        def loop() -> None:
            pause = self.settings.refresh_interval_seconds
            replaced: ReferenceType[Engine] | None = None
            while not stopped.wait(pause):
                pause = self.settings.refresh_interval_seconds
                if replaced is not None and is_collected(replaced):
                    replaced = None
                try:
                    present = None if self._engine is None else ref(self._engine)
                    if self.load_engine():
                        replaced = present
                    self.engine.live_index.follow()
                except (SQLAlchemyError, IndexUnavailable, RedisError) as error:
                    log.warning("The index can't follow the catalogue: %s", error)
                except (EncoderUnavailable, OSError) as error:
                    pause = RETRY_SECONDS
                    log.error("The present release goes on, the active one can't be served: %s", error)
                except Exception:  # else this thread would end, and the worker stay as it is for good
                    pause = RETRY_SECONDS
                    log.exception("The present release goes on: the active one can't be served, or the index not read")

        thread = Thread(target=loop, name="follow-catalogue", daemon=True)
        thread.start()
        return thread

    def _follow_present(self) -> None:
        if self._engine is not None:
            self._engine.live_index.follow()

    def _create_engine(self, release: "Release") -> "Engine":
        from worker.engine import Engine
        from worker.item_indexes import open_index

        encoder = self.active.encoder(release)
        index = open_index(
            self.settings, self.catalogue, self.redis, self.milvus, release, encoder, self._follow_present
        )
        log.info("Serving release %s with %d images", release.id, len(index))
        return Engine(
            settings=self.settings,
            redis=self.redis,
            catalogue=self.catalogue,
            store=self.store,
            release=release,
            encoder=encoder,
            live_index=index,
            fetch=self.fetcher.get,
        )
