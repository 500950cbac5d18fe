"""Opening what an import job names: an upload in the store, or a file below the import root."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from shared.errors import ImportFileBroken, PathRefused
from shared.paths import resolve_below
from shared.settings import Settings
from shared.store import Store
from worker.fetcher import GuardedFetcher
from worker.imports.archive import Archive, open_archive
from worker.imports.catalogue import CatalogueReader, open_catalogue
from worker.imports.formats import detect_format
from worker.imports.images import ArchiveImages, FolderImages, ImageSource, UrlImages


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
        PathRefused: if it is not below the import root.
    """

    def fetch(url: str) -> bytes:
        return fetcher.get(url, settings.upload_max_bytes)

    with ExitStack() as stack:
        images: ImageSource
        archive: Archive | None = None
        if "upload" in parameters:
            name = parameters["upload"]
            try:
                file = stack.enter_context(store.open(name))
            except FileNotFoundError:
                raise ImportFileBroken("The uploaded file is not in the store any more. Send it again.") from None
            images = UrlImages(fetch)
        else:
            name = parameters["path"]
            if settings.import_root is None:
                raise PathRefused("This server has no import root (LOOKALIKE_IMPORT_ROOT). Upload the file instead.")
            file = stack.enter_context(resolve_below(settings.import_root, name).open("rb"))
            folder = str(PurePosixPath(name).parent)
            images = FolderImages(settings.import_root, folder, fetch, settings.upload_max_bytes)
        stated = parameters["format"]
        if detect_format(file, name, stated) == "zip":
            archive = stack.enter_context(
                open_archive(
                    file,
                    max_unpacked_bytes=settings.import_unpacked_max_bytes,
                    max_member_bytes=settings.upload_max_bytes,
                )
            )
            images = ArchiveImages(archive, fetch)
        options = {"columns": parameters["columns"], "encoding": parameters["encoding"]}

        def read_catalogue() -> CatalogueReader:
            if archive is None:
                return open_catalogue(file, name, stated=stated, **options)
            return open_catalogue(stack.enter_context(archive.open_manifest()), archive.manifest_name, **options)

        yield OpenedImport(images, read_catalogue)
