"""What a demo keeps between two runs, below var/demo: a folder per catalogue, and the webhook secret."""

import base64
import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

SECRET_BYTES = 24


@dataclass(frozen=True)
class CatalogueState:
    """What was imported in earlier runs of the demo.

    Attributes:
        folder: the catalogue's own: database, image store, queue, logs.
        database: where the items are, so that an import into another database isn't skipped.
    """

    folder: Path
    database: str

    def was_imported(self, catalogue: Path) -> bool:
        """Whether the file as it is now (path, size, time of change) was imported in an earlier run."""
        try:
            return bool(json.loads(self._record.read_text()) == self._fingerprint(catalogue))
        except (OSError, ValueError):
            return False

    def remember_import(self, catalogue: Path) -> None:
        """Note that the file as it is now was imported."""
        self._record.write_text(json.dumps(self._fingerprint(catalogue)))

    @property
    def _record(self) -> Path:
        return self.folder / "imported.json"

    def _fingerprint(self, catalogue: Path) -> dict[str, str | int]:
        facts = catalogue.stat()
        path = str(catalogue.resolve())
        return {"path": path, "size": facts.st_size, "modified_ns": facts.st_mtime_ns, "database": self.database}


def catalogue_folder(demo_folder: Path, catalogue: Path) -> Path:
    """Return the folder that belongs to a catalogue file: readable, and another one for each path."""
    digest = hashlib.sha256(str(catalogue.resolve()).encode()).hexdigest()[:8]
    return demo_folder / f"{catalogue.resolve().parent.name}-{catalogue.stem}-{digest}"


def webhook_secret(file: Path) -> str:
    """Return the secret that signs callbacks; made once, and readable by its owner alone."""
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        pass
    file.parent.mkdir(parents=True, exist_ok=True)
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new_file:
        new_file.write(secret + "\n")
    return secret
