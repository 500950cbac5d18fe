"""What every system answers from: one encoder with its weights, and the embeddings of one catalogue, as plain files."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shared.catalogue import Catalogue
from shared.releases import Release
from shared.settings import Settings
from worker.decode import decode_image, decode_pixels
from worker.encoder import Transform
from worker.index.recipe import IndexRecipe
from worker.releases.indexes import local_snapshots
from worker.releases.release import recipe_of

K = 10
MAX_BYTES = 20 * 1024**2
MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class Bundle:
    """Names of files and numbers that processes of their own are started with.

    Attributes:
        backbone: the encoder's network.
        weights: its weights file; None: the backbone's own.
        encoder: folder of the release's encoder.
        index: folder of embeddings.npy, float32 (n, dim), items.json, id and title of each row, and index.json.
        threads: CPU threads of a forward pass; all cores.
    """

    backbone: str
    weights: str | None
    encoder: str
    index: str
    threads: int

    def save(self, path: Path) -> None:
        """Write the bundle as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Bundle":
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def decode(photo: bytes) -> Image.Image:
    """Decode a photo by Pillow, with Lookalike's limits and checks."""
    return decode_image(photo, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)


def decode_as_served(photo: bytes, transform: Transform) -> np.ndarray:
    """Decode and scale a photo as Lookalike's search worker does; return uint8 (size, size, 3)."""
    return decode_pixels(photo, transform, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)


def export_index(catalogue: Catalogue, release: Release, cache: Path, folder: Path) -> int:
    """Write the stored embeddings of a release for the systems that know no catalogue; return how many there are.

    Args:
        catalogue: has them.
        release: whose encoder and kind of index.
        cache: `encoder_cache_path` of the installation, where its index is.
        folder: written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    encoder_id = release.encoder_id
    rows, items, vectors = [], [], []
    for page in catalogue.changed_items(encoder_id, 0, catalogue.state().seq):
        for item in page:
            stored = catalogue.item(item.item_id)
            for row, vector in item.rows:
                rows.append(row)
                items.append({"item_id": item.item_id, "title": stored.title})
                vectors.append(np.frombuffer(vector, "<f4"))
    np.save(folder / "embeddings.npy", np.stack(vectors).astype(np.float32))
    (folder / "items.json").write_text(json.dumps(items), encoding="utf-8")
    kept = {"cache": str(cache), "encoder_id": encoder_id, "recipe": recipe_of(release).to_dict(), "rows": rows}
    (folder / "index.json").write_text(json.dumps(kept), encoding="utf-8")
    return len(items)


class PlainIndex:
    """The release's index without Lookalike around it: FAISS's exact one, or the file that its search worker maps."""

    def __init__(self, bundle: Bundle) -> None:
        folder = Path(bundle.index)
        embeddings = np.load(folder / "embeddings.npy")
        kept = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self._items = json.loads((folder / "items.json").read_text(encoding="utf-8"))
        self._search = _opened(embeddings, kept)

    def search(self, embeddings: np.ndarray, k: int = K) -> list[list[dict[str, Any]]]:
        """Return the hits of each row of float32 (n, dim), best first."""
        scores, places = self._search(embeddings, k)
        return [
            [
                {"rank": rank + 1, **self._items[place], "score": round(score, 6)}
                for rank, (place, score) in enumerate(zip(*pair, strict=True))
            ]
            for pair in zip(places.tolist(), scores.tolist(), strict=True)
        ]


def _opened(embeddings: np.ndarray, kept: dict[str, Any]) -> Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]:
    """Return what gives scores and places of items, (n, k) both, for float32 (n, dim) and k."""
    recipe, dim = IndexRecipe(**kept["recipe"]), embeddings.shape[1]
    if recipe.is_exact_for(*embeddings.shape):
        import faiss

        flat = faiss.IndexFlatIP(dim)
        flat.add(embeddings)
        return lambda queries, k: flat.search(queries, k)
    settings = Settings(encoder_cache_path=Path(kept["cache"]))
    snapshot = local_snapshots(settings, kept["encoder_id"], dim, recipe).newest()
    if snapshot is None:
        raise RuntimeError(f"the search worker's index is not below {kept['cache']}")
    index, rows = snapshot.index, np.array(kept["rows"], np.int64)
    order = np.argsort(rows)

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        found = index.search(queries, k)
        return found.scores, order[np.searchsorted(rows, found.rows, sorter=order)]

    return search
