"""Embedding images that the active encoder has not seen: after a change of encoder, or a lost task."""

import logging
from time import monotonic

from shared.catalogue import Catalogue
from shared.errors import ImageMissing, LookalikeError
from shared.store import Store
from worker.imports.intake import PHOTOS_AT_ONCE, Intake

log = logging.getLogger(__name__)


class StoredImages:
    """Images of the store, by their hash. An ImageSource."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, reference: str) -> bytes:
        """Read an image; see ImageSource."""
        try:
            return self._store.image(reference)
        except FileNotFoundError:
            raise ImageMissing("It is not in the store. Restore the store from its backup.") from None


def embed_missing(catalogue: Catalogue, store: Store, intake: Intake, max_seconds: float) -> int:
    """Embed images of the catalogue that have no embedding of the configured encoder; returns how many.

    Stops after `max_seconds`, so that imports get their turn; the next call goes on.
    """
    end, done = monotonic() + max_seconds, 0
    skipped: set[str] = set()
    while monotonic() < end:
        hashes = catalogue.images_to_embed(intake.encoder_id, PHOTOS_AT_ONCE + len(skipped))
        wanted = [sha256 for sha256 in hashes if sha256 not in skipped][:PHOTOS_AT_ONCE]
        if not wanted:
            break
        taken = intake.take(wanted, StoredImages(store))
        for sha256, outcome in zip(wanted, taken.outcomes, strict=True):
            if isinstance(outcome, LookalikeError):
                log.error("Image %s of the catalogue can't be embedded: %s", sha256, outcome)
        skipped.update(sha256 for sha256 in wanted if sha256 not in taken.vectors)
        if taken.vectors:
            with catalogue.change() as change:
                change.add_embeddings(intake.encoder_id, taken.vectors)
        done += len(taken.vectors)
    return done
