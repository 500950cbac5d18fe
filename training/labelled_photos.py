"""Labelled photos to train and measure with: a CSV file, or a folder with one folder per class."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.problem import TrainingProblem

SPLITS = ("train", "val", "test")
SHARES = (0.7, 0.1, 0.2)
PHOTO_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"}
SEVERAL_IMAGES = "|"


@dataclass(frozen=True)
class Columns:
    """Which columns of a CSV file say what.

    Attributes:
        item: id of the item.
        image: path of its photo beside the file; several are joined by "|".
        label: what retrieval is judged by.
        attributes: further columns to learn or to report.
        split: train, val or test; None splits by a hash of the item's id.
    """

    item: str = "id"
    image: str = "image"
    label: str = "article_type"
    attributes: tuple[str, ...] = ()
    split: str | None = "split"


@dataclass(frozen=True)
class LabelledPhotos:
    """Photos in the order of their source; photos of one item are in one split.

    Attributes:
        paths: n files.
        items: the item of each photo.
        label: name of the column that retrieval is judged by.
        values: text (n,) by column; the label's among them.
        splits: text (n,), each of SPLITS.
    """

    paths: tuple[Path, ...]
    items: tuple[str, ...]
    label: str
    values: dict[str, np.ndarray]
    splits: np.ndarray

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.paths)

    def rows_of(self, *splits: str) -> np.ndarray:
        """Return the rows of some splits, int64 (m,), ascending.

        Raises:
            TrainingProblem: if one of them is empty.
        """
        for split in splits:
            if not (self.splits == split).any():
                raise TrainingProblem(
                    f"The split {split!r} is empty ({_counts(self.splits)}). It needs more photos; or correct the "
                    "column of splits, or leave it out with --split-column '' to split by item."
                )
        return np.flatnonzero(np.isin(self.splits, splits))

    def fingerprint(self, of_photos: str) -> str:
        """Return SHA-256 in 64 hex digits over all that is learned from: photos, items, values and splits.

        Args:
            of_photos: the photos' own, see `training.pixel_cache.fingerprint`.
        """
        values = {name: values.tolist() for name, values in self.values.items()}
        told = json.dumps([of_photos, self.items, values, self.splits.tolist()], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def only(self, rows: np.ndarray) -> "LabelledPhotos":
        """Return some of the photos, in the order of `rows`."""
        chosen = rows.tolist()
        return LabelledPhotos(
            tuple(self.paths[row] for row in chosen),
            tuple(self.items[row] for row in chosen),
            self.label,
            {name: values[rows] for name, values in self.values.items()},
            self.splits[rows],
        )


def table_of(source: Path) -> Path | None:
    """Return the CSV file of a source; None where it is a folder with one folder per class, or nothing."""
    table = source / "products.csv" if source.is_dir() else source
    return table if table.is_file() else None


def columns_among(source: Path, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return those of some columns that a source has; a folder of folders has none.

    Of a table that can't be read all are returned: `read_photos` then tells what is wrong.
    """
    table = table_of(source)
    if table is None:
        return ()
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            names = next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error):
        return tuple(wanted)
    return tuple(name for name in wanted if name in names)


def read_photos(source: Path, columns: Columns) -> LabelledPhotos:
    """Read labelled photos from a CSV file, from a folder that holds products.csv, or from folders named by class.

    Of folders, each photo is an item of its own, split by a hash of its path, and the class is the label's value.

    Raises:
        TrainingProblem: if the source can't be used; the message says which line or column is wrong.
    """
    table = table_of(source)
    if table is not None:
        try:
            return _read_csv(table, columns)
        except (UnicodeDecodeError, csv.Error) as error:
            raise TrainingProblem(f"{table} is no CSV file in UTF-8: {error}. Save it as one.") from error
    if source.is_dir():
        return _read_folders(source, columns)
    raise TrainingProblem(f"There is no {source}. Name a CSV file, or a folder that holds one folder per class.")


def split_of(item: str, shares: Sequence[float] = SHARES) -> str:
    """Return the split of an item, by a hash of its id: the same on every machine, and for all photos of the item."""
    place = int.from_bytes(hashlib.sha256(item.encode()).digest()[:8]) / 2**64
    return SPLITS[0] if place < shares[0] else SPLITS[1] if place < shares[0] + shares[1] else SPLITS[2]


def _read_csv(table: Path, columns: Columns) -> LabelledPhotos:
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        wanted = [columns.item, columns.image, columns.label, *columns.attributes]
        if columns.split:
            wanted.append(columns.split)
        missing = [name for name in wanted if name not in (reader.fieldnames or ())]
        if missing:
            raise TrainingProblem(
                f"{table} has no column {missing[0]!r}; it has: {', '.join(reader.fieldnames or ())}. "
                "Map the columns with --item-column, --image-column, --label, --attribute and --split-column."
            )
        rows = [(reader.line_num, {name: row[name] or "" for name in wanted}) for row in reader]
    lines: dict[str, int] = {}
    for line, row in rows:
        _check_row(table, line, row, columns, lines)
    photos = [(row, image) for _, row in rows for image in row[columns.image].split(SEVERAL_IMAGES)]
    if not photos:
        raise TrainingProblem(f"{table} has no rows.")
    items = tuple(row[columns.item] for row, _ in photos)
    named = [columns.label, *columns.attributes]
    return LabelledPhotos(
        tuple(table.parent / image.strip() for _, image in photos),
        items,
        columns.label,
        {name: np.array([row[name] for row, _ in photos]) for name in named},
        np.array([row[columns.split] if columns.split else split_of(row[columns.item]) for row, _ in photos]),
    )


def _check_row(table: Path, line: int, row: dict[str, str], columns: Columns, lines: dict[str, int]) -> None:
    for name in (columns.item, columns.image, columns.label):
        if not row[name]:
            raise TrainingProblem(f"{table}, line {line}: {name} is empty. Fill it in, or remove the line.")
    first = lines.setdefault(row[columns.item], line)
    if first != line:
        raise TrainingProblem(
            f"{table}: lines {first} and {line} have the same {columns.item} {row[columns.item]!r}. Give each item one "
            f"line, and join its images by {SEVERAL_IMAGES!r}."
        )
    if columns.split and row[columns.split] not in SPLITS:
        raise TrainingProblem(
            f"{table}, line {line}: {columns.split} is {row[columns.split]!r}, and must be one of {', '.join(SPLITS)}."
        )


def _read_folders(folder: Path, columns: Columns) -> LabelledPhotos:
    if columns.attributes:
        raise TrainingProblem(
            f"{folder} holds folders per class, which tell the class and no {columns.attributes[0]}. Leave out "
            "--attribute, or name a CSV file."
        )
    found = list(_photos_by_class(folder))
    if not found:
        raise TrainingProblem(
            f"{folder} holds neither products.csv nor folders with photos ({', '.join(sorted(PHOTO_ENDINGS))})."
        )
    paths, classes = zip(*found, strict=True)
    items = tuple(path.relative_to(folder).as_posix() for path in paths)
    return LabelledPhotos(
        tuple(paths),
        items,
        columns.label,
        {columns.label: np.array(classes)},
        np.array([split_of(item) for item in items]),
    )


def _photos_by_class(folder: Path) -> Iterator[tuple[Path, str]]:
    for of_class in sorted(path for path in folder.iterdir() if path.is_dir()):
        for path in sorted(of_class.rglob("*")):
            if path.suffix.lower() in PHOTO_ENDINGS:
                yield path, of_class.name


def _counts(splits: np.ndarray) -> str:
    counts = Counter(splits.tolist())
    return ", ".join(f"{split}: {counts[split]}" for split in SPLITS)
