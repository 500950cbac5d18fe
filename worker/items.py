"""Writing a single item with new photos; runs on a search worker, so that no import delays it."""

from typing import Any

from shared.catalogue import Catalogue
from shared.errors import ImageFetchFailed
from shared.job_record import JobRecord
from shared.schemas import ImportResult
from shared.store import Store
from worker.imports.images import UrlImages
from worker.imports.intake import Intake
from worker.imports.rows import CatalogueRow


class UploadedImages(UrlImages):
    """Photos that web put in the store, and URLs."""

    def __init__(self, store: Store, fetch: Any) -> None:
        super().__init__(fetch)
        self._store = store

    def _read_file(self, path: str) -> bytes:
        try:
            with self._store.open(path) as file:
                return file.read()
        except FileNotFoundError:
            raise ImageFetchFailed("The uploaded photo is not in the store any more. Send it again.") from None


def write_item(job: JobRecord, catalogue: Catalogue, store: Store, intake: Intake, fetch: Any) -> dict[str, Any]:
    """Add or replace the item of a job.

    Returns:
        An ImportResult as JSON values.

    Raises:
        LookalikeError: if one of its photos can't be used; the item then stays as it was.
    """
    parameters = job.parameters
    references = (*parameters["uploads"], *(parameters["image_urls"] or ()))
    row = CatalogueRow(1, parameters["item_id"], parameters["title"], references, parameters["attributes"])
    prepared = intake.prepare([row], UploadedImages(store, fetch))
    for _, error in prepared.rejected:
        raise error
    with catalogue.change() as change:
        change.add_embeddings(intake.encoder_id, prepared.vectors)
        change.put([item for _, item in prepared.items], as_of=job.created_at)
    result = ImportResult(rows=1, imported=1, failed=0, deleted=0, embedded=len(prepared.vectors))
    return result.model_dump()


def clear_uploads(job: JobRecord, store: Store) -> None:
    """Remove the photos that came with an item, once its job has ended."""
    for key in job.parameters["uploads"][:1]:
        store.remove_tree(key.rpartition("/")[0])
