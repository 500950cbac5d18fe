"""Where encoders are: in the store for good, and in a local folder of this machine for opening them.

Keys of the store, and folders below `encoder_cache_path`; the last name is made of the files' SHA-256, since torch and
OpenVINO share the id of one float32 function, and other versions of them write other bytes:

    store   encoders/{encoder id}/{16 hex digits}/model.bin ...
    local   {encoder id}/{16 hex digits}/model.bin ..., manifest.json, compiled/

Local folders appear whole, by a rename, so processes may fill them side by side; they may be deleted at any time.
What is written aside for that (`.new-*`, `.copy-*`) stays where a process is killed; the next one removes it later.
"""

import fcntl
import hashlib
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.releases import Release
from shared.settings import Settings
from shared.store import Store

if TYPE_CHECKING:
    from worker.encoder import Encoder

log = logging.getLogger(__name__)

COPIED_BYTES = 1024 * 1024
ABANDONED_SECONDS = 86_400


def open_release(release: Release, store: Store, settings: Settings) -> "Encoder":
    """Open the encoder of a release, copying it from the store first where this machine has not got it whole.

    Raises:
        EncoderUnavailable: if a file is missing or damaged; the message tells the remedy.
    """
    from worker.encoder import open_encoder
    from worker.encoder.package import EncoderDamaged

    manifest = release.manifest["encoder"]
    folder = local_folder(settings, manifest)
    if not folder.is_dir():
        log.info("Copying encoder %s from the store to %s", release.encoder_id, folder)
        _fetch(manifest, store, folder)
    try:
        return open_encoder(folder, settings.encoder_threads)
    except EncoderDamaged as error:
        log.warning("Copying encoder %s from the store once more: %s", release.encoder_id, error)
    with alone(settings):
        try:
            return open_encoder(folder, settings.encoder_threads)  # another process may have replaced it meanwhile
        except EncoderDamaged:
            _fetch(manifest, store, folder, replaces=True)
            return open_encoder(folder, settings.encoder_threads)


def keep_encoder(folder: Path, manifest: Mapping[str, Any], store: Store) -> None:
    """Copy an encoder's files to the store; those that are there already stay."""
    for name in manifest["files"]:
        key = _key(manifest, name)
        if not store.exists(key):
            with (folder / name).open("rb") as file:
                store.put_stream(key, file)


def local_folder(settings: Settings, manifest: Mapping[str, Any]) -> Path:
    """Return where this machine has an encoder, or would have it."""
    return settings.encoder_cache_path / str(manifest["id"]) / _fingerprint(manifest)


def local_encoders(settings: Settings, encoder_id: str) -> list[dict[str, Any]]:
    """Return the manifests of all that this machine has under an encoder's id, in no order that means anything."""
    from worker.encoder import EncoderUnavailable, read_manifest

    manifests = []
    for folder in sorted((settings.encoder_cache_path / encoder_id).glob("[0-9a-f]*")):
        try:
            manifests.append(read_manifest(folder))
        except EncoderUnavailable as error:
            log.warning("%s", error)
    return manifests


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Have the processes of this machine make encoders one after the other; the second finds what the first made."""
    settings.encoder_cache_path.mkdir(parents=True, exist_ok=True)
    with (settings.encoder_cache_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def making_folder(settings: Settings) -> Iterator[Path]:
    """Give an empty folder on the file system of the local encoders, for the time of the block."""
    settings.encoder_cache_path.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(settings.encoder_cache_path, ".new-*")
    with tempfile.TemporaryDirectory(prefix=".new-", dir=settings.encoder_cache_path) as folder:
        yield Path(folder)


def adopt(folder: Path, manifest: Mapping[str, Any], settings: Settings) -> Path:
    """Move an encoder that was just made to its local folder, unless there is the same; returns that folder."""
    place = local_folder(settings, manifest)
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(place)
    except OSError:
        if not place.is_dir():
            raise
        shutil.rmtree(folder)
    return place


def _fetch(manifest: Mapping[str, Any], store: Store, folder: Path, *, replaces: bool = False) -> None:
    """Copy files and check them; the manifest comes from the release, which is the one that counts.

    Args:
        manifest: names the files and their SHA-256.
        store: has them.
        folder: what they become.
        replaces: whether a folder that is there goes, once the copy is whole.
    """
    from worker.encoder import EncoderUnavailable
    from worker.encoder.package import sync_folder

    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.parent, ".copy-*")
    aside = Path(tempfile.mkdtemp(prefix=".copy-", dir=folder.parent))
    try:
        for name, sha256 in manifest["files"].items():
            try:
                found = _copy(store, _key(manifest, name), aside / Path(name).name)
            except FileNotFoundError:
                found = "nothing"
            if found != sha256:
                raise EncoderUnavailable(
                    f"The store's {_key(manifest, name)} is not what the release was built with ({found} is there, not "
                    f"{sha256}). Restore it from a backup of the store, or build a release: "
                    "python -m worker.build_release."
                )
        (aside / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        aside.chmod(0o755)
        sync_folder(aside)
        if replaces:
            shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove what processes wrote aside in a folder and did not live to rename."""
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):  # another process may be removing it
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _copy(store: Store, key: str, path: Path) -> str:
    """Copy a file of the store and return its SHA-256."""
    digest = hashlib.sha256()
    with store.open(key) as source, path.open("wb") as target:
        while block := source.read(COPIED_BYTES):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()


def _fingerprint(manifest: Mapping[str, Any]) -> str:
    files = json.dumps(manifest["files"], sort_keys=True)
    return hashlib.sha256(files.encode()).hexdigest()[:16]


def _key(manifest: Mapping[str, Any], name: str) -> str:
    return f"encoders/{manifest['id']}/{_fingerprint(manifest)}/{name}"
