"""An encoder as a folder: a manifest and the files of its runtime, each with its SHA-256.

    manifest.json         id, base_id, backbone, runtime, dim, transform, files (name -> SHA-256), gate
    model.xml, model.bin  runtimes openvino and openvino-int8
    weights.safetensors   runtime torch
    compiled/             made where it is opened, for the CPU there, with SHA-256; not part of the package

A folder appears whole: it is written aside, synced and renamed.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worker.encoder.encoder import Encoder, EncoderUnavailable

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"


class EncoderDamaged(EncoderUnavailable):
    """A file of the folder is missing or is not what was saved; a fresh copy of the folder helps."""


def save_encoder(folder: Path, manifest: Mapping[str, Any], write: Callable[[Path], None]) -> dict[str, Any]:
    """Write an encoder; a folder of that name is replaced.

    Args:
        folder: whose parent is there.
        manifest: what `Encoder.manifest` holds; `files` is added.
        write: puts the runtime's files into the folder that it is given.

    Returns:
        The manifest as written.
    """
    with _replacing(folder) as aside:
        write(aside)
        files = {path.name: _sha256(path) for path in sorted(aside.iterdir())}
        whole = {**manifest, "files": files}
        (aside / MANIFEST).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    return whole


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return an encoder's manifest.

    Raises:
        EncoderDamaged: if there is none, or none that can be read.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or not manifest.keys() >= {"id", "dim", "runtime", "transform", "files"}:
            raise ValueError("it lacks what an encoder's manifest must tell")
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"its {MANIFEST} can't be read: {error}") from error
    return manifest


def open_encoder(folder: Path, threads: int) -> Encoder:
    """Open an encoder that `save_encoder` wrote, whatever its runtime. Only the runtime torch needs PyTorch.

    Args:
        folder: may be read-only for the runtime torch; OpenVINO keeps the compiled network in it.
        threads: CPU threads of one forward pass.

    Raises:
        EncoderDamaged: if a file is missing or is not what the manifest says; the message tells the remedy.
        EncoderUnavailable: if its runtime is not installed, or does not know the network.
    """
    manifest = read_manifest(folder)
    for name, sha256 in manifest["files"].items():
        path = folder / Path(name).name
        if not path.is_file():
            raise _damaged(folder, f"{name} is missing")
        if _sha256(path) != sha256:
            raise _damaged(folder, f"{name} is not what was saved: its SHA-256 differs")
    if manifest["runtime"] == "torch":
        from worker.encoder.reference import open_torch_encoder

        return open_torch_encoder(manifest, folder / WEIGHTS, threads)
    try:
        from worker.encoder.openvino_encoder import OpenVinoEncoder
    except ImportError:
        raise EncoderUnavailable(
            f"Encoder {manifest['id']} needs OpenVINO: pip install openvino, "
            "or build a release with LOOKALIKE_ENCODER_RUNTIME=torch."
        ) from None
    return OpenVinoEncoder(manifest, folder, threads)


def sync_folder(folder: Path) -> None:
    """Have the disk hold the files of a folder and their names, before a rename makes it count."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _damaged(folder: Path, what: str) -> EncoderDamaged:
    return EncoderDamaged(
        f"The encoder in {folder} can't be used: {what}. Delete that folder: it is copied again from the store at the "
        "next start. If it comes back damaged, build the release again: python -m worker.build_release."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Give a new folder beside `folder` that takes its name when the block ends well."""
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield aside
        aside.chmod(0o755)  # mkdtemp's folder is its maker's alone
        sync_folder(aside)
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
