"""What every system answers from: one encoder with its weights, and the embeddings of one catalogue, as plain files."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shared.catalogue import Catalogue
from worker.decode import decode_image

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
        index: folder of embeddings.npy, float32 (n, dim), and items.json, id and title of each row.
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
    """Decode a photo exactly as Lookalike does, limits and checks included."""
    return decode_image(photo, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)


def export_index(catalogue: Catalogue, encoder_id: str, folder: Path) -> int:
    """Write the stored embeddings of an encoder for the systems that know no catalogue; return how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    items, vectors = [], []
    for page in catalogue.changed_items(encoder_id, 0, catalogue.state().seq):
        for item in page:
            stored = catalogue.item(item.item_id)
            for _, vector in item.rows:
                items.append({"item_id": item.item_id, "title": stored.title})
                vectors.append(np.frombuffer(vector, "<f4"))
    np.save(folder / "embeddings.npy", np.stack(vectors).astype(np.float32))
    (folder / "items.json").write_text(json.dumps(items), encoding="utf-8")
    return len(items)


class PlainIndex:
    """FAISS's exact index over a bundle's embeddings, as one would write it in a page of code."""

    def __init__(self, bundle: Bundle) -> None:
        import faiss

        embeddings = np.load(Path(bundle.index, "embeddings.npy"))
        self._items = json.loads(Path(bundle.index, "items.json").read_text(encoding="utf-8"))
        self._index = faiss.IndexFlatIP(embeddings.shape[1])
        self._index.add(embeddings)

    def search(self, embeddings: np.ndarray, k: int = K) -> list[list[dict[str, Any]]]:
        """Return the hits of each row of float32 (n, dim), best first."""
        scores, rows = self._index.search(embeddings, k)
        return [
            [
                {"rank": rank + 1, **self._items[row], "score": round(score, 6)}
                for rank, (row, score) in enumerate(zip(*pair, strict=True))
            ]
            for pair in zip(rows.tolist(), scores.tolist(), strict=True)
        ]
