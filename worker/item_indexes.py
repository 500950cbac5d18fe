"""Opens the index of a release, where the settings want it: with FAISS in this process, or in Milvus."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from redis import Redis

from shared.catalogue import Catalogue
from shared.errors import IndexUnavailable
from shared.releases import Release
from shared.settings import Settings
from worker.encoder import Encoder
from worker.item_index import ItemIndex
from worker.releases.release import recipe_of

if TYPE_CHECKING:
    from worker.milvus.connection import MilvusConnection


def connect_milvus(settings: Settings) -> "MilvusConnection | None":
    """Return the connection that all indexes of a process share; None where the settings name no Milvus.

    Raises:
        IndexUnavailable: if its client is not installed.
    """
    if settings.index_url is None:
        return None
    try:
        from worker.milvus.connection import MilvusConnection
    except ImportError as error:
        raise IndexUnavailable(
            f"LOOKALIKE_INDEX_URL names Milvus, whose client is not installed ({error}). "
            "Run: pip install --requirement requirements-milvus.txt"
        ) from error
    token = settings.index_token
    return MilvusConnection(settings.index_url, None if token is None else token.get_secret_value())


def open_index(
    settings: Settings,
    catalogue: Catalogue,
    redis: Redis,
    milvus: "MilvusConnection | None",
    release: Release,
    encoder: Encoder,
    meanwhile: Callable[[], object],
) -> ItemIndex[Any]:
    """Return the index of a release, which holds all that the catalogue has now.

    `meanwhile` is called about every second, where it takes longer to fill it.

    Raises:
        IndexUnavailable: if it is in Milvus, and that can't be reached.
    """
    if milvus is None:
        from worker.index.flat_index import FlatIndex
        from worker.live_index import LiveIndex
        from worker.releases.indexes import local_snapshots

        snapshots = local_snapshots(settings, encoder.id, encoder.dim, recipe_of(release))
        live_index = LiveIndex(catalogue, FlatIndex(encoder.dim), encoder.id, snapshots)
        live_index.refresh()
        return live_index
    from worker.milvus.milvus_index import MilvusIndex

    index = MilvusIndex(catalogue, redis, milvus, release.id, encoder.id, encoder.dim, recipe_of(release))
    index.open(meanwhile)
    return index
