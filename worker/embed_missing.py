"""Embedding images that the active encoder has not seen: after a change of encoder, or a lost task."""

import logging
from time import monotonic

from PIL.Image import Image

from shared.catalogue import Catalogue
from shared.errors import LookalikeError
from shared.store import Store
from worker.imports.intake import Intake

log = logging.getLogger(__name__)

BATCH = 64


def embed_missing(catalogue: Catalogue, store: Store, intake: Intake, max_seconds: float) -> int:
    """Embed images of the catalogue that have no embedding of the configured encoder; returns how many.

    Stops after `max_seconds`, so that imports get their turn; the next call goes on.
    """
    end, done = monotonic() + max_seconds, 0
    skipped: set[str] = set()
    while monotonic() < end:
        hashes = catalogue.images_to_embed(intake.encoder_id, BATCH + len(skipped))
        wanted = [sha256 for sha256 in hashes if sha256 not in skipped][:BATCH]
        if not wanted:
            break
        uprights: dict[str, Image] = {}
        for sha256 in wanted:
            try:
                uprights[sha256] = intake.decode(store.image(sha256))
            except (FileNotFoundError, LookalikeError) as error:
                log.error("Image %s of the catalogue can't be embedded: %s", sha256, error)
                skipped.add(sha256)
        vectors = intake.embed(uprights)
        if vectors:
            with catalogue.change() as change:
                change.add_embeddings(intake.encoder_id, vectors)
        done += len(vectors)
    return done
