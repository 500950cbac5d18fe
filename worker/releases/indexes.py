"""Indexes of releases: built from stored embeddings, kept on this machine below `encoder_cache_path`.

    indexes/{encoder id}/                    snapshots of the exact index
    indexes/{encoder id}/{recipe's name}/    those of an approximate one

They may be deleted at any time: a search worker builds what it lacks.
"""

from typing import Any

from sqlalchemy import func, select

from shared.catalogue import Catalogue
from shared.errors import ReleaseNotBuilt
from shared.releases import Release
from shared.settings import Settings
from shared.tables import EmbeddingRow, ItemImageRow
from worker.index.recipe import IndexRecipe
from worker.index.snapshot import Snapshots
from worker.indexed_images import embedded_pages
from worker.releases.release import recipe_of


def local_snapshots(settings: Settings, encoder_id: str, dim: int, recipe: IndexRecipe) -> Snapshots:
    """Return the snapshots that this machine has of an encoder's embeddings and a recipe, or will have."""
    folder = settings.encoder_cache_path / "indexes" / encoder_id
    if not recipe.is_exact:
        folder /= recipe.name
    return Snapshots(folder, encoder_id, dim, recipe, settings.index_kept_snapshots)


def build_index(catalogue: Catalogue, settings: Settings, release: Release, dim: int) -> dict[str, Any]:
    """Build the index of a release from stored embeddings, unless it is exact or in Milvus; no image is read.

    Returns:
        What the release's manifest tells of its index, as JSON values.

    Raises:
        ReleaseNotBuilt: if no index does what the recipe asks; the message tells what would do.
        OSError: if a file can't be written.
    """
    recipe = recipe_of(release)
    if settings.index_url is not None:  # a search worker fills a collection in Milvus before it serves the release
        return {"kind": "milvus", "recipe": recipe.to_dict()}
    if recipe.is_exact:
        return {"kind": "flat"}
    snapshots = local_snapshots(settings, release.encoder_id, dim, recipe)
    pages = embedded_pages(catalogue, release.encoder_id, dim)
    try:
        snapshot = snapshots.write(pages, _count_embedded(catalogue, release.encoder_id))
    except ValueError as error:
        raise ReleaseNotBuilt(str(error)) from error
    return {**snapshot.described, "recipe": recipe.to_dict()}


def _count_embedded(catalogue: Catalogue, encoder_id: str) -> int:
    image = ItemImageRow
    rows = select(func.count()).select_from(image).join(EmbeddingRow, EmbeddingRow.sha256 == image.sha256)
    with catalogue.engine.connect() as connection:
        return connection.execute(rows.where(EmbeddingRow.encoder_id == encoder_id)).scalar_one()
