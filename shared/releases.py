"""Releases that the catalogue database knows: an encoder and an index each, of which one is active."""

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shared.catalogue import Catalogue
from shared.catalogue_change import CatalogueChange
from shared.errors import EncoderNotFound, ReleaseNotFinished, ReleaseNotFound
from shared.paths import resolve_below
from shared.tables import CatalogueState, ReleaseRow

log = logging.getLogger(__name__)

CHOSEN = "chosen_by_operator"


@dataclass(frozen=True)
class Release:
    """One encoder with its runtime, and how its index is built.

    The id names both, and embeddings are stored by encoder, so vectors of one encoder never meet another's index.
    A release that is built again keeps its id if it computes the same; then the newer manifest counts.

    Attributes:
        id: the name in results, "<encoder id>.<name of the index's recipe>".
        encoder_id: whose embeddings it finds.
        manifest: JSON values: encoder (with its files and what the accuracy gate saw), index (its recipe, and what
            was measured of it), similar (the threshold and how it was found), comparison (with the release that was
            active), built_at, built_from.
    """

    id: str
    encoder_id: str
    manifest: dict[str, Any]

    @property
    def runtime(self) -> str:
        """What runs the encoder's network: torch, openvino or openvino-int8."""
        return str(self.manifest["encoder"]["runtime"])

    @property
    def min_cosine(self) -> float:
        """Cosine from which two embeddings share a result; 1 means equal embeddings only."""
        return float(self.manifest["similar"]["min_cosine"])

    @property
    def is_finished(self) -> bool:
        """Whether it can serve: its encoder's files are kept, and its threshold was decided."""
        return "files" in self.manifest.get("encoder", {}) and "similar" in self.manifest

    @property
    def is_chosen(self) -> bool:
        """Whether an operator activated it; then it serves, whatever encoder the settings name."""
        return self.is_finished and bool(self.manifest.get(CHOSEN))

    def fits(self, base_id: str) -> bool:
        """Tell whether it can serve an encoder, given by the id of its float32 function."""
        return self.is_finished and self.manifest["encoder"].get("base_id") == base_id


def registered_releases(catalogue: Catalogue) -> list[Release]:
    """Return all releases, the newest first."""
    with Session(catalogue.engine) as session:
        rows = session.scalars(select(ReleaseRow).order_by(ReleaseRow.created_at.desc(), ReleaseRow.id))
        return [Release(row.id, row.encoder_id, row.manifest) for row in rows]


def encoder_folder(root: Path | None, name: str) -> Path:
    """Return the folder of a trained encoder that a release is to be built of.

    Args:
        root: the setting `encoder_root`.
        name: the folder, relative to it.

    Raises:
        EncoderNotFound: if this machine doesn't have it.
        PathRefused: if the name leads elsewhere.
    """
    folder = None if root is None else resolve_below(root, name)
    if folder is None or not folder.is_dir():
        raise EncoderNotFound(
            f"This server finds no encoder {name!r}. Put the folder that `python -m training.export` wrote below "
            "LOOKALIKE_ENCODER_ROOT, on web's machine and on each with a bulk worker."
        )
    return folder


def find_release(catalogue: Catalogue, release_id: str) -> Release:
    """Return a release.

    Raises:
        ReleaseNotFound: if there is none of that id.
    """
    with Session(catalogue.engine) as session:
        row = session.get(ReleaseRow, release_id)
        if row is None:
            raise ReleaseNotFound(f"There is no release {release_id!r}; GET /v1/releases lists them.")
        return Release(row.id, row.encoder_id, row.manifest)


def active_release(catalogue: Catalogue) -> Release | None:
    """Return the release that searches use, if there is one."""
    with Session(catalogue.engine) as session:
        return _active(session)


def _active(session: Session) -> Release | None:
    chosen = select(ReleaseRow).join(CatalogueState, CatalogueState.release_id == ReleaseRow.id)
    row = session.scalars(chosen).one_or_none()
    return None if row is None else Release(row.id, row.encoder_id, row.manifest)


def activate_unless_fitting(catalogue: Catalogue, release: Release, base_id: str) -> Release:
    """Let searches use a release, unless another process has activated one that fits meanwhile; returns the active."""
    with catalogue.change() as change:
        present = _active(change.session)
        if present is not None and (present.is_chosen or present.fits(base_id)):
            return present
        _write(change, release)
        change.activate(release.id, release.encoder_id, release.manifest)
    log.info("Release %s is active now; before it: %s", release.id, present.id if present else "none")
    return release


def choose_release(catalogue: Catalogue, release: Release) -> Release:
    """Let searches use a release on an operator's word, until the next one; return it as it is registered then.

    Raises:
        ReleaseNotFinished: if it can't serve yet.
    """
    if not release.is_finished:
        raise ReleaseNotFinished(
            f"Release {release.id} is not built to its end. Build it again: what was embedded is kept."
        )
    chosen = replace(release, manifest={**release.manifest, CHOSEN: True})
    with catalogue.change() as change:
        _write(change, chosen)
        change.activate(chosen.id, chosen.encoder_id, chosen.manifest)
    log.info("Release %s is active now", release.id)
    return chosen


def register_release(catalogue: Catalogue, release: Release) -> None:
    """Register a release as it is now; searches go on with the one they use. One that was chosen stays chosen."""
    with catalogue.change() as change:
        present = change.session.get(ReleaseRow, release.id)
        if present is not None and CHOSEN in present.manifest:
            release = replace(release, manifest={**release.manifest, CHOSEN: present.manifest[CHOSEN]})
        _write(change, release)


def announce_release(catalogue: Catalogue, release: Release) -> None:
    """Note a release that is being built, so that an interrupted build can go on; one of that id stays as it is."""
    with catalogue.change() as change:
        change.insert_new(ReleaseRow, [_row(release)])


def _write(change: CatalogueChange, release: Release) -> None:
    row = _row(release)
    change.insert_new(ReleaseRow, [row])
    change.session.execute(update(ReleaseRow).where(ReleaseRow.id == release.id).values(manifest=row["manifest"]))


def _row(release: Release) -> dict[str, Any]:
    return {
        "id": release.id,
        "encoder_id": release.encoder_id,
        "manifest": release.manifest,
        "created_at": datetime.now(UTC),
    }
