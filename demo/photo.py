"""Chooses the photo that the demo searches with."""

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from client.api import Api, Job
from client.catalogue import image_references, is_url, local_image, read_rows, relative_name

CATALOGUE_SUFFIXES = (".csv", ".tsv", ".ndjson", ".jsonl", ".parquet")
SPLIT_COLUMN, TEST_SPLIT = "split", "test"
SHOWN_ITEMS = 5


class NoPhoto(RuntimeError):
    """The catalogue names no image that could be searched with."""


@dataclass(frozen=True)
class Photo:
    """A photo, as bytes or as a URL for the server to fetch."""

    name: str
    content: bytes = b""

    def search(self, api: Api) -> Job:
        """Search with it for the few best items."""
        if is_url(self.name):
            return api.search_reference({"image_url": self.name, "k": SHOWN_ITEMS})
        return api.search_photo(self.content, Path(self.name).name, {"k": SHOWN_ITEMS})


def photo_of_file(file: Path) -> Photo:
    """Return a photo of this machine."""
    return Photo(str(file), file.read_bytes())


def photo_of_catalogue(catalogue: Path) -> Photo:
    """Return an image of the catalogue: of the first test row if there is a split, else of the last row.

    Raises:
        NoPhoto: if no row names an image that is there.
    """
    if catalogue.suffix.lower() == ".zip":
        return _photo_of_archive(catalogue)
    for reference in reversed(_candidates(read_rows(catalogue))):
        if is_url(reference):
            return Photo(reference)
        if file := local_image(catalogue.parent, reference):
            return photo_of_file(file)
    raise NoPhoto(f"{catalogue} names no image that could be searched with.")


def _photo_of_archive(catalogue: Path) -> Photo:
    with zipfile.ZipFile(catalogue) as archive, TemporaryDirectory() as folder:
        names = set(archive.namelist())
        tables = [name for name in names if Path(name).suffix.lower() in CATALOGUE_SUFFIXES]
        for table in sorted(tables, key=lambda name: (name.count("/"), name)):
            extracted = Path(folder) / f"table{Path(table).suffix}"
            extracted.write_bytes(archive.read(table))
            for reference in reversed(_candidates(read_rows(extracted))):
                if is_url(reference):
                    return Photo(reference)
                name = (Path(table).parent / (relative_name(reference) or "")).as_posix()
                if name in names:
                    return Photo(reference, archive.read(name))
    raise NoPhoto(f"{catalogue} names no image that could be searched with.")


def _candidates(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return some image references, the wanted one last."""
    last: list[str] = []
    for row in rows:
        references = image_references(row)[:1]
        if references and row.get(SPLIT_COLUMN) == TEST_SPLIT:
            return last + references
        last = references or last
    return last
