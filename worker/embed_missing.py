"""Embedding images that an encoder has not seen: after a change of encoder, or a lost task."""

import logging
from collections.abc import Callable
from time import monotonic

from shared.catalogue import Catalogue
from shared.errors import ImageMissing, LookalikeError
from shared.store import Store
from worker.imports.intake import Intake

log = logging.getLogger(__name__)

TAKEN_IMAGES = 128  # between two looks at the clock
COMMITTED_IMAGES = 512  # of one transaction: few of them, and little to do again after a crash


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


def embed_missing(
    catalogue: Catalogue,
    store: Store,
    intake: Intake,
    max_seconds: float,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Embed the images of the catalogue that have no embedding of the intake's encoder.

    Args:
        catalogue: whose images.
        store: has their bytes.
        intake: does it; its encoder is the active release's in a worker, and another one while a release is built.
        max_seconds: stops after that, so that imports get their turn; the next call goes on.
        progress: told after each part how many images were looked at in it.

    Returns:
        How many were embedded. What was embedded is committed, at an error as well.
    """
    end, done, last = monotonic() + max_seconds, 0, ""
    vectors: dict[str, bytes] = {}

    def commit() -> None:
        nonlocal done
        if vectors:
            with catalogue.change() as change:
                change.add_embeddings(intake.encoder_id, vectors)
            done += len(vectors)
            vectors.clear()

    try:
        while monotonic() < end:
            wanted = catalogue.images_to_embed(intake.encoder_id, TAKEN_IMAGES, after=last)
            if not wanted:
                break
            taken = intake.take(wanted, StoredImages(store))
            for sha256, outcome in zip(wanted, taken.outcomes, strict=True):
                if isinstance(outcome, LookalikeError):
                    log.error("Image %s of the catalogue can't be embedded: %s", sha256, outcome)
            # A file that changed in the store has another hash than the image that was asked for.
            vectors |= {sha256: taken.vectors[sha256] for sha256 in wanted if sha256 in taken.vectors}
            last = wanted[-1]
            if len(vectors) >= COMMITTED_IMAGES:
                commit()
            progress(len(wanted))
    finally:
        commit()
    return done
