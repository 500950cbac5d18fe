"""The release that a worker serves: an encoder, and an index of the vectors it made."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.catalogue import Catalogue

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Release:
    """One encoder and one kind of index; immutable.

    The id names both, and embeddings are stored by encoder, so vectors of one encoder never meet another's index.
    """

    encoder_id: str
    index_kind: str

    @property
    def id(self) -> str:
        """Name of the release in results."""
        return f"{self.encoder_id}.{self.index_kind}"


def activate_release(catalogue: Catalogue, release: Release, encoder_manifest: Mapping[str, Any]) -> None:
    """Let searches use a release, registering it first if it is new."""
    before = catalogue.state().release_id
    if before == release.id:
        return
    manifest = {"encoder": dict(encoder_manifest), "index": {"kind": release.index_kind}}
    with catalogue.change() as change:
        change.activate(release.id, release.encoder_id, manifest)
    log.info("Release %s is active now; before it: %s", release.id, before or "none")
