"""What a teacher sees: its embeddings of the photos that are learned from, computed once."""

import hashlib
import logging
from pathlib import Path

import numpy as np

from training.files import writing_aside
from training.labelled_photos import LabelledPhotos
from training.served import Told, embed_photos, open_judged

log = logging.getLogger(__name__)


def taught_embeddings(
    teacher: str, photos: LabelledPhotos, rows: np.ndarray, fingerprint: str, cache: Path, threads: int, told: Told
) -> np.ndarray:
    """Return a teacher's embeddings, float32 (len(photos), its dim), unit rows; 0 in rows that are not asked for.

    Args:
        teacher: folder of an encoder, backbone, or several of them joined by +.
        photos: as they were read.
        rows: int64 (n,), those to embed; all can be read.
        fingerprint: of the photos' bytes.
        cache: folder that keeps the embeddings; may be deleted at any time.
        threads: CPU threads of one forward pass.
        told: told how many are embedded, of how many.

    Raises:
        EncoderUnavailable: if it can't be opened; the message tells the remedy.
        TrainingProblem: if there is no such encoder.
    """
    encoder = open_judged(teacher, threads)
    asked = hashlib.sha256(f"{encoder.id} {fingerprint} {rows.tolist()}".encode()).hexdigest()[:16]
    path = cache / f"taught-{asked}.npy"
    if not path.exists():
        embeddings, _ = embed_photos(encoder, photos, rows, told)
        cache.mkdir(parents=True, exist_ok=True)
        with writing_aside(path) as aside, aside.open("wb") as file:
            np.save(file, embeddings)
    known: np.ndarray = np.load(path, mmap_mode="r")
    return known
