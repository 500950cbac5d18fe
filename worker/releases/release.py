"""A release, and the releases that the catalogue database knows."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shared.catalogue import Catalogue
from shared.catalogue_change import CatalogueChange
from shared.tables import CatalogueState, ReleaseRow

if TYPE_CHECKING:
    from worker.index.recipe import IndexRecipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Release:
    """One encoder with its runtime, and how its index is built.

    The id names both, and embeddings are stored by encoder, so vectors of one encoder never meet another's index.
    A release that is built again keeps its id if it computes the same; then the newer manifest counts.

    Attributes:
        id: the name in results, "<encoder id>.<name of the index's recipe>".
        encoder_id: whose embeddings it finds.
        manifest: JSON values: encoder (with its files and what the accuracy gate saw), index (its recipe, and what
            was measured of it), similar (the threshold and how it was found), built_at, built_from.
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
    def recipe(self) -> "IndexRecipe":
        """How its index is built; exact where the manifest says nothing else."""
        from worker.index.recipe import IndexRecipe

        return IndexRecipe(**self.manifest.get("index", {}).get("recipe", {}))

    @property
    def is_finished(self) -> bool:
        """Whether it can serve: its encoder's files are kept, and its threshold was decided."""
        return "files" in self.manifest.get("encoder", {}) and "similar" in self.manifest

    def fits(self, base_id: str) -> bool:
        """Tell whether it can serve an encoder, given by the id of its float32 function."""
        return self.is_finished and self.manifest["encoder"].get("base_id") == base_id


def release_of(encoder_manifest: dict[str, Any], recipe: "IndexRecipe | None" = None, **described: Any) -> Release:
    """Return the release of an encoder and an index, by default the exact one; `described` is the manifest's rest."""
    encoder_id = encoder_manifest["id"]
    index_name, index = "flat", dict[str, Any](kind="flat")
    if recipe is not None and not recipe.is_exact:
        index_name, index = recipe.name, {"recipe": recipe.to_dict()}
    return Release(f"{encoder_id}.{index_name}", encoder_id, {"encoder": encoder_manifest, "index": index, **described})


def registered_releases(catalogue: Catalogue) -> list[Release]:
    """Return all releases, the newest first."""
    with Session(catalogue.engine) as session:
        rows = session.scalars(select(ReleaseRow).order_by(ReleaseRow.created_at.desc(), ReleaseRow.id))
        return [Release(row.id, row.encoder_id, row.manifest) for row in rows]


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
        if present is not None and present.fits(base_id):
            return present
        _write(change, release)
        change.activate(release.id, release.encoder_id, release.manifest)
    log.info("Release %s is active now; before it: %s", release.id, present.id if present else "none")
    return release


def activate_release(catalogue: Catalogue, release: Release) -> None:
    """Register a release as it is now, and let searches use it."""
    with catalogue.change() as change:
        _write(change, release)
        change.activate(release.id, release.encoder_id, release.manifest)
    log.info("Release %s is active now", release.id)


def register_release(catalogue: Catalogue, release: Release) -> None:
    """Register a release as it is now; searches go on with the one they use."""
    with catalogue.change() as change:
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
