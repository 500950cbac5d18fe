"""A release made from the catalogue: the fastest runtime that passes its gate, all embeddings, the threshold."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Literal

import numpy as np
from sqlalchemy import func, select

from shared.catalogue import Catalogue
from shared.releases import Release, announce_release, choose_release, register_release, registered_releases
from shared.settings import Settings
from shared.store import Store
from shared.tables import EmbeddingRow, ItemImageRow
from worker.embed_missing import embed_missing
from worker.encoder import Encoder, Runtime, choose_runtime, encoder_id, load_encoder
from worker.imports.intake import Intake
from worker.index.recipe import IndexRecipe, fast_enough
from worker.releases.compare import compare_with_active
from worker.releases.encoder_folders import adopt, keep_encoder, making_folder, open_release
from worker.releases.indexes import build_index
from worker.releases.release import release_of
from worker.releases.sample import Sample, choose_label, choose_sample, read_images
from worker.releases.similar import ALTERATIONS, calibrate, versions

log = logging.getLogger(__name__)

SIMILAR_PHOTOS = 300


@dataclass(frozen=True)
class Wishes:
    """What the operator asks for.

    Attributes:
        runtime: auto takes the fastest that passes.
        label: attribute for Precision@5; None leaves the choice.
        recipe: how the index shall be built; None: exact while that is fast enough, else of recall@10 0.99.
        activates: whether searches shall use the release at once.
        resumes: whether an interrupted build goes on, if there is one.
    """

    runtime: Runtime | Literal["auto"] = "auto"
    label: str | None = None
    recipe: IndexRecipe | None = None
    activates: bool = True
    resumes: bool = True

    @property
    def asked(self) -> list[Any]:
        """What tells whether two builds were to be the same, as JSON values."""
        return [self.runtime, self.label, *([self.recipe.to_dict()] if self.recipe else [])]


@dataclass
class Built:
    """What came of it."""

    release: Release
    embedded: int
    seconds: dict[str, float] = field(default_factory=dict)


Progress = Callable[[str, int, int | None], None]
"""Told a step in words, how far it is, and of how many (None: unknown)."""


class ReleaseBuilder:
    """Builds releases of the encoder that the settings name. Nothing that searches use changes before the end."""

    def __init__(self, catalogue: Catalogue, store: Store, settings: Settings, progress: Progress) -> None:
        """Args:
        catalogue: gives images and labels, takes embeddings and the release.
        store: has the images, takes the encoder.
        settings: name the backbone, its weights and threads.
        progress: told how far it is.
        """
        self._catalogue = catalogue
        self._store = store
        self._settings = settings
        self._progress = progress
        self._seconds: dict[str, float] = {}

    def build(self, wishes: Wishes) -> Built:
        """Build a release, or go on with one; see `Wishes`.

        Raises:
            ReleaseNotBuilt: if the catalogue does not allow it; the message tells the remedy.
            EncoderUnavailable: the same of weights and runtimes.
        """
        sample = choose_sample(self._catalogue)
        draft = self._interrupted(wishes) if wishes.resumes else None
        if draft is None:
            with self._timing("runtime"):
                draft = self._choose_runtime(sample, wishes)
        encoder = open_release(draft, self._store, self._settings)
        with self._timing("embeddings"):
            embedded = self._embed_catalogue(encoder)
        with self._timing("threshold"):
            similar = self._calibrate(encoder, sample)
        with self._timing("index"):
            self._progress("Building the index", 0, None)
            index = build_index(self._catalogue, self._settings, draft, encoder.dim)
        with self._timing("comparison"):
            self._progress("Comparing with the active release", 0, None)
            comparison = compare_with_active(self._catalogue, draft, sample.held_out, wishes.label)
        built_at = datetime.now(UTC).isoformat(timespec="seconds")
        finished = {"similar": similar, "index": index, "comparison": comparison, "built_at": built_at}
        release = Release(draft.id, draft.encoder_id, {**draft.manifest, **finished})
        if wishes.activates:
            release = choose_release(self._catalogue, release)
        else:
            register_release(self._catalogue, release)
        return Built(release, embedded, self._seconds)

    @contextmanager
    def _timing(self, step: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self._seconds[step] = perf_counter() - start

    def _interrupted(self, wishes: Wishes) -> Release | None:
        base_id = encoder_id(self._settings.encoder, self._settings.encoder_weights_path)
        draft = interrupted_build(self._catalogue, base_id, wishes)
        if draft is not None:
            log.info("Going on with release %s, which was not finished", draft.id)
        return draft

    def _choose_runtime(self, sample: Sample, wishes: Wishes) -> Release:
        settings = self._settings
        label, _ = choose_label(self._catalogue, sample.held_out, wishes.label)
        self._progress("Loading the encoder", 0, None)
        reference = load_encoder(settings.encoder, settings.encoder_weights_path, settings.encoder_threads)
        _, calibration = self._pixels(reference, sample.calibration, "Reading images to quantise with")
        used, held_out = self._pixels(reference, sample.held_out, "Reading images to measure with")
        _, labels = choose_label(self._catalogue, used, label) if label else (None, [])
        with making_folder(settings) as folder:
            choice = choose_runtime(
                reference,
                folder,
                calibration=calibration,
                held_out=held_out,
                labels=labels or None,
                wanted=wishes.runtime,
                threads=settings.encoder_threads,
                progress=lambda what: self._progress(what[:1].upper() + what[1:], 0, None),
            )
            keep_encoder(adopt(choice.folder, choice.manifest, settings), choice.manifest, self._store)
        built_from = {
            "images": sample.catalogue_images,
            "calibration_images": len(calibration),
            "held_out_images": len(held_out),
            "label": label,
            "asked": wishes.asked,
            "chosen_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        recipe = wishes.recipe or fast_enough(sample.catalogue_images, choice.manifest["dim"])
        draft = release_of(choice.manifest, recipe, built_from=built_from)
        announce_release(self._catalogue, draft)
        return draft

    def _pixels(self, encoder: Encoder, hashes: Sequence[str], step: str) -> tuple[list[str], np.ndarray]:
        """Return the readable ones of some images and their pixels, uint8 (n, size, size, 3)."""
        size = encoder.transform.size
        used: list[str] = []
        pixels = np.empty((len(hashes), size, size, 3), np.uint8)
        for sha256, image in read_images(self._store, self._settings, hashes):
            pixels[len(used)] = encoder.pixels(image)
            used.append(sha256)
            self._progress(step, len(used), len(hashes))
        return used, pixels[: len(used)]

    def _embed_catalogue(self, encoder: Encoder) -> int:
        intake = Intake(self._settings, self._catalogue, self._store, encoder.id, lambda: encoder)
        total, seen = self._count_missing(encoder.id), 0

        def progress(images: int) -> None:
            nonlocal seen
            seen += images
            self._progress("Embedding the catalogue", seen, max(total, seen))

        return embed_missing(self._catalogue, self._store, intake, float("inf"), progress)

    def _count_missing(self, encoder: str) -> int:
        image = ItemImageRow.sha256
        known = select(EmbeddingRow.sha256).where(EmbeddingRow.encoder_id == encoder, EmbeddingRow.sha256 == image)
        with self._catalogue.engine.connect() as connection:
            return connection.execute(select(func.count(image.distinct())).where(~known.exists())).scalar_one()

    def _calibrate(self, encoder: Encoder, sample: Sample) -> dict[str, Any]:
        hashes = sample.held_out[: min(SIMILAR_PHOTOS, sample.catalogue_images // 4)]
        used: list[str] = []
        embeddings = np.empty((len(hashes), 1 + len(ALTERATIONS), encoder.dim), np.float32)
        for sha256, image in read_images(self._store, self._settings, hashes):
            pixels = np.stack([encoder.pixels(version) for version in versions(image)])
            embeddings[len(used)] = encoder.embed(pixels)
            used.append(sha256)
            self._progress("Embedding altered copies of photos", len(used), len(hashes))
        photos = embeddings[: len(used)]
        self._progress("Calibrating the threshold of similar hits", 0, None)
        index, items = self._index_without(encoder, set(used))
        return calibrate(index, items, photos[:, 0], photos[:, 1:])

    def _index_without(self, encoder: Encoder, left_out: set[str]) -> tuple[np.ndarray, list[str]]:
        """Return the stored embeddings of all other images, float32 (n, dim), and the item of each."""
        image = ItemImageRow
        rows = (
            select(image.item_id, image.sha256, EmbeddingRow.vector)
            .join(EmbeddingRow, EmbeddingRow.sha256 == image.sha256)
            .where(EmbeddingRow.encoder_id == encoder.id)
            .order_by(image.id)
        )
        with self._catalogue.engine.connect() as connection:
            total = connection.execute(select(func.count()).select_from(rows.subquery())).scalar_one()
            vectors = np.empty((total, encoder.dim), np.float32)
            items: list[str] = []
            for item_id, sha256, vector in connection.execution_options(yield_per=1000).execute(rows):
                if sha256 not in left_out and len(items) < total:
                    vectors[len(items)] = np.frombuffer(vector, "<f4")
                    items.append(item_id)
        return vectors[: len(items)], items


def interrupted_build(catalogue: Catalogue, base_id: str, wishes: Wishes) -> Release | None:
    """Return the build that was to be the same and did not end, unless one that was to be the same ended later.

    Args:
        catalogue: knows all releases.
        base_id: of the encoder's float32 function.
        wishes: what is asked for now.
    """
    same = [
        release
        for release in registered_releases(catalogue)
        if release.manifest.get("built_from", {}).get("asked") == wishes.asked
        and release.manifest.get("encoder", {}).get("base_id") == base_id
    ]
    newest = max(same, key=_last_change, default=None)
    return None if newest is None or newest.is_finished else newest


def _last_change(release: Release) -> str:
    """Return when a release was finished, or its runtime chosen. A release built again keeps its place in the table."""
    return str(release.manifest.get("built_at") or release.manifest["built_from"].get("chosen_at", ""))
