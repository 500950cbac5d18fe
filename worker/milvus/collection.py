"""One release's rows in Milvus.

    id        int64, the image's row in every index; 0 is the state
    item_id   whose image it is
    sha256    of the image: tells the same row of another database
    vector    float32 (dim,)
    a_NAME    the item's attributes (dynamic fields)

The state is a row in a partition of its own, with dynamic fields `encoder` and `seq`: the catalogue's seq up to which
all changes are here. An alias, `lookalike`, names the collection of the active release.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from pymilvus import DataType, MilvusClient

from worker.index.recipe import IndexRecipe
from worker.index.vector_index import Vectors
from worker.milvus.connection import MilvusConnection
from worker.milvus.item_rows import ImageRow

ALIAS = "lookalike"
IMAGES, STATE = "_default", "state"
STATE_ID = 0
SEARCH_SECONDS, WRITE_SECONDS, LOAD_SECONDS = 5.0, 10.0, 3600.0
CALL_BYTES = 3 * 1024**2  # gRPC's usual limit is 4 MiB
ROW_BYTES = 2048  # about what a row takes beside its vector
IDS_AT_ONCE = 1000
# milvus-lite keeps what was written last as rows, and makes arrays of them for each search: 45 ms for 360 rows.
LOCAL_ROWS = 100
MAX_DEPTH = 16_384  # Milvus finds no more at once
# efSearch by recall target. With FAISS, 64 found 0.998 of ten among 43,916 whole vectors of 2048 numbers; larger
# catalogues need more.
EF_BY_TARGET = ((0.95, 64), (0.99, 128), (0.995, 256), (1.0, 512))
GRAPH = {"M": 32, "efConstruction": 200}

Thing = TypeVar("Thing")
Row = tuple[int, float, str]
"""A row's id, its score, its item."""


class ForeignCollection(RuntimeError):
    """The collection of a release holds another encoder's vectors; the message tells the remedy."""


def collection_name(release_id: str) -> str:
    """Return the collection of a release: Milvus allows letters, digits and underscores."""
    readable = re.sub(r"\W", "_", release_id, flags=re.ASCII)
    return f"{ALIAS}_{readable}_{hashlib.sha256(release_id.encode()).hexdigest()[:8]}"


class ReleaseCollection:
    """The rows of one release. Its name says whose encoder's vectors these are, and its state says so again."""

    def __init__(
        self, milvus: MilvusConnection, release_id: str, encoder_id: str, dim: int, recipe: IndexRecipe
    ) -> None:
        self.name = collection_name(release_id)
        self.dim = dim
        self._milvus = milvus
        self._encoder_id = encoder_id
        # milvus-lite passes over efSearch: a graph would find less than was asked for. Catalogues of laptops are small.
        self.is_exact = recipe.is_exact or milvus.is_local
        self._ef = next(ef for target, ef in EF_BY_TARGET if recipe.recall_target <= target)
        self._rows_in_memory = 0  # of milvus-lite, about

    def create(self) -> None:
        """Make what is not there yet. To be called by one process at a time."""
        with self._milvus.calling() as client:
            if not client.has_collection(self.name, timeout=WRITE_SECONDS):
                schema = self._schema()
                client.create_collection(self.name, schema=schema, consistency_level="Bounded", timeout=WRITE_SECONDS)
            if not client.has_partition(self.name, STATE, timeout=WRITE_SECONDS):
                client.create_partition(self.name, STATE, timeout=WRITE_SECONDS)
            if not client.list_indexes(self.name):
                client.create_index(self.name, self._indexes(), timeout=WRITE_SECONDS)

    def open(self) -> None:
        """Let Milvus load what was created, and see whose it is.

        Raises:
            IndexUnavailable: if Milvus can't be reached.
            ForeignCollection: if the collection holds another encoder's vectors.
        """
        with self._milvus.calling() as client:
            # Asked first, since loading may take long, and so waits long for a server that is away.
            if str(client.get_load_state(self.name, timeout=WRITE_SECONDS)["state"]) != "Loaded":
                if self._milvus.is_local:
                    # Copies of the vectors, written in place: half of one, left by a kill, it could not read.
                    client.drop_index(self.name, "vector", timeout=WRITE_SECONDS)
                    client.create_index(self.name, self._indexes(), timeout=WRITE_SECONDS)
                client.load_collection(self.name, timeout=LOAD_SECONDS)
        state = self._read_state()
        if state is None:
            self.set_seq(0)
        elif state["encoder"] != self._encoder_id:
            raise ForeignCollection(
                f"Milvus's collection {self.name} holds vectors of {state['encoder']}, not of {self._encoder_id}. "
                "Drop it; it is filled anew from the stored embeddings."
            )

    def _schema(self) -> Any:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("item_id", DataType.VARCHAR, max_length=128)
        schema.add_field("sha256", DataType.VARCHAR, max_length=64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.dim)
        return schema

    def _indexes(self) -> Any:
        indexes = MilvusClient.prepare_index_params()
        kind, arguments = ("FLAT", {}) if self.is_exact else ("HNSW", GRAPH)
        # Of unit vectors the inner product is the cosine, and Milvus need not normalise them again.
        indexes.add_index("vector", index_type=kind, metric_type="IP", params=arguments)
        if not self._milvus.is_local:  # the writer asks for the rows of items
            indexes.add_index("item_id", index_type="INVERTED")
        return indexes

    def _read_state(self) -> dict[str, Any] | None:
        with self._milvus.calling() as client:
            found = client.query(
                self.name,
                filter=f"id in [{STATE_ID}]",
                output_fields=["encoder", "seq"],
                partition_names=[STATE],
                consistency_level="Strong",
                timeout=SEARCH_SECONDS,
            )
        return dict(found[0]) if found else None

    def seq(self) -> int:
        """Return the catalogue's seq up to which all changes are here."""
        state = self._read_state()
        return 0 if state is None else int(state["seq"])

    def set_seq(self, seq: int) -> None:
        """Note that all changes up to a seq are here."""
        nowhere = np.zeros(self.dim, np.float32)
        nowhere[0] = 1
        state = {"id": STATE_ID, "item_id": "", "sha256": "", "vector": nowhere}
        self._put([{**state, "encoder": self._encoder_id, "seq": seq}], STATE)

    def put(self, rows: Sequence[ImageRow]) -> None:
        """Write rows; those that are here already are replaced."""
        for some in _parts(rows, self.vectors_at_once):
            self._put([row.to_fields() for row in some], IMAGES)

    def _put(self, rows: list[dict[str, Any]], partition: str) -> None:
        with self._milvus.calling() as client:
            # Milvus's upsert replaces a row. milvus-lite's keeps fields that the new one lacks; its insert replaces it.
            write = client.insert if self._milvus.is_local else client.upsert
            write(self.name, rows, partition_name=partition, timeout=WRITE_SECONDS)
            self._rows_in_memory += len(rows)
            if self._milvus.is_local and self._rows_in_memory >= LOCAL_ROWS:
                client.flush(self.name, timeout=WRITE_SECONDS)
                self._rows_in_memory = 0

    def remove(self, ids: Collection[int]) -> None:
        """Remove rows; unknown ids are passed over."""
        for some in _parts(sorted(ids), IDS_AT_ONCE):
            with self._milvus.calling() as client:
                client.delete(self.name, ids=some, partition_name=IMAGES, timeout=WRITE_SECONDS)

    def ids_of(self, item_ids: Sequence[str]) -> set[int]:
        """Return the rows of items."""
        names = ", ".join(f'"{item_id}"' for item_id in item_ids)  # no id needs escaping (shared/schemas.py)
        return {row["id"] for row in self._rows(f"item_id in [{names}]", ["id"])}

    def vectors(self, ids: Sequence[int]) -> dict[int, Vectors]:
        """Return the vectors, float32 (dim,), of those of some rows that are here."""
        parts = [f"id in [{', '.join(map(str, some))}]" for some in _parts(ids, self.vectors_at_once)]
        found = [row for part in parts for row in self._rows(part, ["id", "vector"])]
        return {row["id"]: np.array(row["vector"], np.float32) for row in found}

    @property
    def vectors_at_once(self) -> int:
        """How many vectors one call may carry."""
        return max(1, CALL_BYTES // (4 * self.dim + ROW_BYTES))

    def hashes(self, first: int, last: int) -> dict[int, str]:
        """Return the SHA-256 of the images of all rows in a range of at most MAX_DEPTH ids, both ends included."""
        found = self._rows(f"id >= {max(first, 1)} and id <= {last}", ["id", "sha256"])
        return {row["id"]: row["sha256"] for row in found}

    def ids_above(self, row: int) -> set[int]:
        """Return rows with higher ids, up to MAX_DEPTH of them."""
        return {found["id"] for found in self._rows(f"id > {max(row, 0)}", ["id"], limit=MAX_DEPTH)}

    def _rows(self, expression: str, fields: list[str], **options: Any) -> list[dict[str, Any]]:
        with self._milvus.calling() as client:
            found: list[dict[str, Any]] = client.query(
                self.name,
                filter=expression,
                output_fields=fields,
                partition_names=[IMAGES],
                consistency_level="Strong",
                timeout=WRITE_SECONDS,
                **options,
            )
        return found

    def __len__(self) -> int:
        """Return the number of rows, counted now."""
        return int(self._rows("id > 0", ["count(*)"])[0]["count(*)"])

    def search(self, queries: Vectors, depth: int, expression: str, is_fresh: bool) -> list[list[Row]]:
        """Find the nearest rows.

        Args:
            queries: float32 (n, dim), rows of L2 norm 1.
            depth: wanted rows, up to MAX_DEPTH.
            expression: which rows; empty: all.
            is_fresh: whether it must see writes of the last seconds, and so wait for Milvus's clock.

        Returns:
            For each query the nearest rows, by descending score, ties by id; fewer only where there are fewer.
        """
        with self._milvus.calling() as client:
            found = client.search(
                self.name,
                data=list(queries),
                filter=expression,
                limit=depth,
                output_fields=["item_id"],
                search_params={"metric_type": "IP", "params": {} if self.is_exact else {"ef": max(self._ef, depth)}},
                partition_names=[IMAGES],
                consistency_level="Strong" if is_fresh else "Bounded",
                timeout=SEARCH_SECONDS,
            )
        return [_ranked(hits) for hits in found]

    def point_alias(self) -> None:
        """Let the alias name this collection."""
        with self._milvus.calling() as client:
            point = client.alter_alias if ALIAS in client.list_aliases()["aliases"] else client.create_alias
            point(self.name, ALIAS, timeout=WRITE_SECONDS)


def _parts(things: Sequence[Thing], size: int) -> Iterator[list[Thing]]:
    for start in range(0, len(things), size):
        yield list(things[start : start + size])


def _ranked(hits: Any) -> list[Row]:
    rows = [(hit["id"], min(1.0, max(-1.0, hit["distance"])), hit["entity"]["item_id"]) for hit in hits]
    return sorted(rows, key=lambda row: (-row[1], row[0]))
