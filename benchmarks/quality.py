"""How well a trained encoder finds, through the engine that serves.

    make bench-quality ENCODER=var/training/fashion/encoder
    python -m benchmarks.quality --encoder ENCODER --data ../shared/datasets/fashion

quantises the encoder as a release does, puts train + val as items into a catalogue of its own, lets the engine search
with each test photo, and prints `name: value` lines. The last is what int8 costs, in points of Precision@5, against the
same network in float32. The folder of a release's encoder (below LOOKALIKE_ENCODER_CACHE_PATH) is judged as it serves,
without that comparison.
"""

import argparse
import hashlib
import json
import logging
import tempfile
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from redis import Redis
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from shared.database import connect_database
from shared.errors import InvalidImage
from shared.job_record import JobRecord
from shared.migrations import upgrade
from shared.releases import Release
from shared.settings import Settings
from shared.store import Store
from training.evaluate import ATTRIBUTES
from training.judgement import judge
from training.labelled_photos import Columns, LabelledPhotos, columns_among, read_photos
from training.metrics import interval
from training.problem import TrainingProblem
from training.retrieval import DEPTH, Found
from training.served import as_served, embed_photos
from worker.encoder import Encoder, EncoderUnavailable, read_manifest
from worker.encoder.package import MANIFEST
from worker.encoder.runtimes import Runtime
from worker.engine import Engine
from worker.index.flat_index import FlatIndex
from worker.live_index import LiveIndex

log = logging.getLogger(__name__)

PRINTED = ("p_at_1", "p_at_5", "p_at_10", "p_at_5_sub_category", "colour_at_5", "map_at_r")
PAGE = 500

Told = Callable[[int, int], None]


def items_of(
    catalogue: Catalogue, encoder: Encoder, photos: LabelledPhotos, index: np.ndarray, told: Told
) -> np.ndarray:
    """Put photos into a catalogue as items with one image each, named after their rows, with their embeddings.

    Returns:
        Rows of those that can be read.

    Raises:
        TrainingProblem: if none can.
    """
    embeddings, readable = embed_photos(encoder, photos, index, told)
    if len(readable) == 0:
        raise TrainingProblem(f"None of the {len(index)} photos of the index can be read. Check the column of images.")
    for rows in np.array_split(readable, -(-len(readable) // PAGE)):
        names = {int(row): f"{row:064x}" for row in rows}
        with catalogue.change() as change:
            change.add_embeddings(
                encoder.id, {name: embeddings[row].astype("<f4").tobytes() for row, name in names.items()}
            )
            change.put([ItemChange(str(row), "", {}, [ImageRef(name, "image/jpeg")]) for row, name in names.items()])
    return readable


def engine_of(catalogue: Catalogue, encoder: Encoder, folder: Path) -> Engine:
    """Return the engine that a search worker has, without caches, so no Redis is needed."""
    return Engine(
        settings=Settings(_env_file=None, cache_ttl_seconds=0),
        redis=Redis(),
        catalogue=catalogue,
        store=Store(str(folder / "store")),
        release=Release(f"{encoder.id}.flat", encoder.id, {"similar": {"min_cosine": 1.0}}),
        encoder=encoder,
        live_index=LiveIndex(catalogue, FlatIndex(encoder.dim), encoder.id),
        fetch=lambda *_: b"",
    )


def search_with(engine: Engine, photo: bytes, k: int) -> tuple[list[int], list[float]]:
    """Return the rows of the items that a search job finds, and their scores."""
    source = {"sha256": hashlib.sha256(photo).hexdigest()}
    asked = {"source": source, "k": k, "min_score": None, "filter": None, "crop": None, "use_caches": False}
    fields = {
        b"kind": b"search",
        b"status": b"running",
        b"created_at": datetime.now(UTC).isoformat().encode(),
        b"parameters": json.dumps(asked).encode(),
    }
    answer = engine.search(JobRecord(uuid.uuid4().hex, fields), photo, lambda: None)
    hits = json.loads(answer.result)["hits"]
    return [int(hit["item_id"]) for hit in hits], [hit["score"] for hit in hits]


def found_by_engine(
    encoder: Encoder, photos: LabelledPhotos, queries: np.ndarray, index: np.ndarray, told: Told
) -> Found:
    """Search with photos of one split among items of others, one job after the other."""
    labels = photos.values[photos.label][index]
    depth = max(DEPTH, int(np.unique(labels, return_counts=True)[1].max()))
    with tempfile.TemporaryDirectory() as folder:
        database = connect_database(f"sqlite:///{folder}/quality.sqlite3")
        upgrade(database)
        catalogue = Catalogue(database)
        index = items_of(catalogue, encoder, photos, index, lambda done, _: told(done, len(index) + len(queries)))
        engine = engine_of(catalogue, encoder, Path(folder))
        asked, rows, scores = [], [], []
        for place, query in enumerate(queries.tolist()):
            told(len(index) + place + 1, len(index) + len(queries))
            try:
                found = search_with(engine, photos.paths[query].read_bytes(), min(depth, len(index)))
            except (OSError, InvalidImage) as error:
                log.warning("%s is left out: %s", photos.paths[query], error)
                continue
            asked.append(query)
            rows.append(found[0])
            scores.append(found[1])
        database.dispose()
    if not asked:
        raise TrainingProblem(f"None of the {len(queries)} photos that ask can be read. Check the column of images.")
    return Found(photos, np.array(asked), index, np.array(rows), np.array(scores, np.float32))


def measure(encoder: str, photos: LabelledPhotos, threads: int, progress: Progress) -> list[str]:
    """Return the lines to print."""
    queries, index = photos.rows_of("test"), photos.rows_of("train", "val")
    train, val = photos.rows_of("train"), photos.rows_of("val")

    def bar(step: str) -> Told:
        task = progress.add_task(step)
        return lambda done, total: progress.update(task, completed=done, total=total)

    folder = Path(encoder)
    made_for: Runtime = read_manifest(folder)["runtime"] if (folder / MANIFEST).exists() else "torch"
    served_in: Runtime = "openvino-int8" if made_for == "torch" else made_for
    with as_served(encoder, served_in, photos, train, val, threads) as (served, size_bytes):
        lines = [f"encoder: {served.id}", f"runtime: {served.manifest['runtime']}", f"bytes: {size_bytes}"]
        each = found_by_engine(served, photos, queries, index, bar("Searching")).figures()
    for name in PRINTED:
        if name in each:
            known = interval(each[name])
            lines += [f"{name}: {known.mean:.4f}", f"{name}_interval: {known.low:.4f} to {known.high:.4f}"]
    if made_for != "torch":
        return lines
    with as_served(encoder, "openvino", photos, train, val, threads) as (exact, _):
        reference = judge(exact, photos, queries, index, bar("Embedding in float32")).each
    lines += [f"float32_{name}: {reference[name].mean():.4f}" for name in PRINTED if name in reference]
    return [*lines, f"int8_loss_points: {100 * (reference['p_at_5'].mean() - each['p_at_5'].mean()):.2f}"]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--encoder", required=True, help="folder that training.export wrote, or a backbone")
    parser.add_argument("--data", type=Path, required=True, help="CSV file, or folder of products.csv")
    parser.add_argument("--label", default="article_type")
    parser.add_argument(
        "--attribute",
        action="append",
        help="further columns; default: sub_category and base_colour, where there are such",
    )
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    chosen = tuple(arguments.attribute or ()) or columns_among(arguments.data, ATTRIBUTES)
    columns = Columns(label=arguments.label, attributes=chosen)
    bars = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    errors = Console(stderr=True)
    try:
        with Progress(*bars, console=errors, disable=not errors.is_terminal, transient=True) as progress:
            lines = measure(arguments.encoder, read_photos(arguments.data, columns), arguments.threads, progress)
    except (TrainingProblem, EncoderUnavailable) as error:
        raise SystemExit(str(error)) from error
    print("\n".join(lines))


if __name__ == "__main__":
    main()
