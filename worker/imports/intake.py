"""From rows to a committed change: read the photos, embed those that are new, write all in one transaction."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from shared.errors import LookalikeError
from shared.settings import Settings
from shared.store import Store
from worker.encoder import Encoder
from worker.imports.images import ImageSource, WithoutMetadata
from worker.imports.photo_line import PHOTOS_AT_ONCE, PhotoLine
from worker.imports.photo_work import PhotoWork, PixelBudget
from worker.imports.rows import CatalogueRow

__all__ = ["PHOTOS_AT_ONCE", "Intake", "Prepared", "Taken"]

PIXELS_AT_ONCE = 50_000_000  # that are decoded together: 200 MB, since Pillow keeps four bytes of each


@dataclass(frozen=True)
class Taken:
    """What became of some photos.

    Attributes:
        outcomes: for each photo where it is kept, or why it can't be used.
        vectors: new embeddings, little-endian float32, by image hash.
    """

    outcomes: list[ImageRef | LookalikeError]
    vectors: dict[str, bytes]


@dataclass
class Prepared:
    """Rows that are ready to be written."""

    items: list[tuple[CatalogueRow, ItemChange]] = field(default_factory=list)
    rejected: list[tuple[CatalogueRow, LookalikeError]] = field(default_factory=list)
    vectors: dict[str, bytes] = field(default_factory=dict)


class Intake:
    """Prepares items with their photos for the catalogue. Threads may share it, and take turns with large memory."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        store: Store,
        encoder_id: str,
        load_encoder: Callable[[], Encoder],
        pixels_at_once: int = PIXELS_AT_ONCE,
    ) -> None:
        """Args:
        settings: limits of photos.
        catalogue: tells which embeddings are known.
        store: keeps the photos.
        encoder_id: whose embeddings are wanted.
        load_encoder: called only if there is something to embed; by several threads.
        pixels_at_once: most pixels that are decoded at a time; a larger photo is decoded alone.
        """
        self.encoder_id = encoder_id
        self._keeps_metadata = settings.keep_image_metadata
        self._work = PhotoWork(settings, catalogue, store, encoder_id, load_encoder, PixelBudget(pixels_at_once))

    def prepare(self, rows: Sequence[CatalogueRow], source: ImageSource) -> Prepared:
        """Read, check, keep and embed the photos of some rows; camera data is removed before a photo has its hash.

        Returns:
            The items to write, the rows whose photo can't be used, and the new embeddings by image hash.
        """
        images: list[dict[int, ImageRef]] = [{} for _ in rows]
        errors: dict[int, tuple[int, LookalikeError]] = {}

        def wanted() -> Iterator[tuple[tuple[int, int], str]]:
            # The first photos of all rows, then the second ones: once one of a row can't be used, no other is read.
            for position in range(max((len(row.images) for row in rows), default=0)):
                for number, row in enumerate(rows):
                    if position < len(row.images) and number not in errors:
                        yield (number, position), row.images[position]

        line = PhotoLine[tuple[int, int]](self._work, source if self._keeps_metadata else WithoutMetadata(source))
        for (number, position), outcome in line.run(wanted()):
            if isinstance(outcome, ImageRef):
                images[number][position] = outcome
            elif number not in errors or position < errors[number][0]:
                errors[number] = position, outcome
        prepared = Prepared()
        for number, row in enumerate(rows):
            if number in errors:
                prepared.rejected.append((row, errors[number][1]))
            else:
                refs = [images[number][position] for position in range(len(row.images))]
                prepared.items.append((row, ItemChange(row.item_id, row.title, row.attributes, refs)))
                prepared.vectors |= {ref.sha256: line.vectors[ref.sha256] for ref in refs if ref.sha256 in line.vectors}
        return prepared

    def take(self, references: Sequence[str], source: ImageSource) -> Taken:
        """Read, check, keep and embed any number of photos as they are; the more, the less the network waits."""
        line = PhotoLine[int](self._work, source)
        outcomes = dict(line.run(iter(enumerate(references))))
        return Taken([outcomes[number] for number in range(len(references))], line.vectors)
