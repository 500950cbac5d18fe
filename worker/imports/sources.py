"""Opening what an import job names: an upload in the store, or a file below the import root."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from shared.errors import ImportFileBroken, PathRefused
from shared.paths import resolve_below
from shared.settings import Settings
from shared.store import Store
from worker.fetcher import GuardedFetcher
from worker.imports.archive import Archive, LastArchive, open_archive
from worker.imports.catalogue import CatalogueReader, open_catalogue
from worker.imports.formats import detect_format
from worker.imports.images import ArchiveImages, FolderImages, ImageSource, UrlImages

_last_archive = LastArchive()


@dataclass
class OpenedImport:
    """A catalogue file and where its photos come from.

    Attributes:
        images: reads the photos that rows name.
        read_catalogue: opens the table, or raises InvalidImport; only planning needs it.
    """

    images: ImageSource
    read_catalogue: Callable[[], CatalogueReader]


@contextmanager
def open_import(
    parameters: dict[str, Any], settings: Settings, store: Store, fetcher: GuardedFetcher
) -> Iterator[OpenedImport]:
    """Open the file of an import job; it closes with the block.

    Args:
        parameters: of the job, as web/imports.py writes them.
        settings: limits, and the import root.
        store: holds uploads.
        fetcher: for photos that are named by URL.

    Raises:
        InvalidImport: if it can't be read as a catalogue.
        PathRefused: if it is not below the import root, or can't be read there.
    """

    def fetch(url: str) -> bytes:
        return fetcher.get(url, settings.upload_max_bytes)

    with ExitStack() as stack:
        images: ImageSource
        archive: Archive | None = None
        if "upload" in parameters:
            name = parameters["upload"]
            identity: tuple[str | int, ...] = (name,)  # an upload is written once
            try:
                file = stack.enter_context(store.open(name))
            except FileNotFoundError:
                raise ImportFileBroken("The uploaded file is not in the store any more. Send it again.") from None
            images = UrlImages(fetch)
        else:
            name = parameters["path"]
            if settings.import_root is None:
                raise PathRefused("This server has no import root (LOOKALIKE_IMPORT_ROOT). Upload the file instead.")
            file = stack.enter_context(_open_below(settings.import_root, name))
            found = os.fstat(file.fileno())
            identity = (name, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
            folder = str(PurePosixPath(name).parent)
            images = FolderImages(settings.import_root, folder, fetch, settings.upload_max_bytes)
        stated = parameters["format"]
        if detect_format(file, name, stated) == "zip":
            open_new = partial(
                open_archive,
                max_unpacked_bytes=settings.import_unpacked_max_bytes,
                max_member_bytes=settings.upload_max_bytes,
            )
            archive = stack.enter_context(_last_archive.opened(identity, file, open_new))
            images = ArchiveImages(archive, fetch)
        options = {"columns": parameters["columns"], "encoding": parameters["encoding"]}

        def read_catalogue() -> CatalogueReader:
            if archive is None:
                return open_catalogue(file, name, stated=stated, **options)
            return open_catalogue(stack.enter_context(archive.open_manifest()), archive.manifest_name, **options)

        yield OpenedImport(images, read_catalogue)


def _open_below(root: Path, name: str) -> BinaryIO:
    path = resolve_below(root, name)
    try:
        if not path.is_file():  # neither a folder nor a pipe, which would block
            raise FileNotFoundError("no such file")
        return path.open("rb")
    except OSError as error:
        raise PathRefused(
            f"There is no readable file {name!r} below the import root of the bulk worker ({error.strerror or error}). "
            "Put it back, and let web and bulk have the same folder as import root."
        ) from None
