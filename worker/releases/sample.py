"""Photos and labels of the catalogue to measure a release with; the same catalogue gives the same ones."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL.Image import Image
from sqlalchemy import func, select

from shared.catalogue import Catalogue
from shared.errors import LookalikeError, ReleaseNotBuilt
from shared.settings import Settings
from shared.store import Store
from shared.tables import AttributeRow, ItemAttributeRow, ItemImageRow
from worker.decode import decode_image

log = logging.getLogger(__name__)

MIN_IMAGES = 30
CALIBRATION_IMAGES = 300
HELD_OUT_IMAGES = 600
READ_AT_ONCE = 16
LABELLED_SHARE = 0.9
IMAGES_A_LABEL = 5


@dataclass(frozen=True)
class Sample:
    """Images by their hash: to quantise with, and others to measure with; no image is in both."""

    calibration: list[str]
    held_out: list[str]
    catalogue_images: int


def choose_sample(catalogue: Catalogue) -> Sample:
    """Take the images with the lowest hashes, which are as good as random: one in three to quantise with.

    Raises:
        ReleaseNotBuilt: if the catalogue has too few images.
    """
    image = ItemImageRow.sha256
    with catalogue.engine.connect() as connection:
        total = connection.execute(select(func.count(image.distinct()))).scalar_one()
        chosen = select(image).distinct().order_by(image).limit(CALIBRATION_IMAGES + HELD_OUT_IMAGES)
        hashes = list(connection.execute(chosen).scalars())
    if total < MIN_IMAGES:
        raise ReleaseNotBuilt(
            f"The catalogue has {total} images, and a release is measured with {MIN_IMAGES} at least. "
            "Import items first: python -m client import FILE."
        )
    third = len(hashes) // 3
    return Sample(hashes[:third], hashes[third:], total)


def choose_label(catalogue: Catalogue, hashes: Sequence[str], wanted: str | None) -> tuple[str | None, list[str]]:
    """Choose the attribute that tells which images belong together, and read it.

    Without a wish it is the string attribute with the most values among those that nine of ten images have, with
    2 values at least and 5 images to a value on average.

    Args:
        catalogue: knows the attributes.
        hashes: the images.
        wanted: name of a string attribute; None leaves the choice.

    Returns:
        The attribute and one label for each image, of which those of images without the attribute occur once only;
        None and no labels if no attribute suits.

    Raises:
        ReleaseNotBuilt: if there is no string attribute of the wanted name, or none of the images has it.
    """
    values = _values(catalogue, hashes)
    if wanted is not None:
        if wanted not in values:
            known = ", ".join(sorted(values)) or "none"
            raise ReleaseNotBuilt(f"There is no string attribute {wanted!r} to take labels from; there are: {known}.")
        return wanted, _labels(values[wanted], hashes)
    suited = {
        name: len(set(of_images.values()))
        for name, of_images in values.items()
        if len(of_images) >= LABELLED_SHARE * len(hashes)
        and 2 <= len(set(of_images.values())) <= len(hashes) / IMAGES_A_LABEL
    }
    if not suited:
        return None, []
    label = max(suited, key=lambda name: (suited[name], name))
    return label, _labels(values[label], hashes)


def _values(catalogue: Catalogue, hashes: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the value of each image by attribute; of several items that share an image, the first by id counts."""
    attribute = ItemAttributeRow
    statement = (
        select(attribute.name, ItemImageRow.sha256, attribute.text_value)
        .join(ItemImageRow, ItemImageRow.item_id == attribute.item_id)
        .join(AttributeRow, AttributeRow.name == attribute.name)
        .where(ItemImageRow.sha256.in_(hashes), AttributeRow.type == "string", attribute.text_value.is_not(None))
        .order_by(attribute.item_id)
    )
    values: dict[str, dict[str, str]] = defaultdict(dict)
    with catalogue.engine.connect() as connection:
        for name, sha256, value in connection.execute(statement):
            values[name].setdefault(sha256, value or "")
    return dict(values)


def _labels(of_images: dict[str, str], hashes: Sequence[str]) -> list[str]:
    # A hash is no value that a second image could have.
    return [of_images.get(sha256, f"unlabelled {sha256}") for sha256 in hashes]


def read_images(store: Store, settings: Settings, hashes: Sequence[str]) -> Iterator[tuple[str, Image]]:
    """Yield the decoded images in their order, some of them read ahead; those that can't be read are left out.

    Raises:
        ReleaseNotBuilt: if most of them can't be read, which is no accident of single files.
    """
    problems: Counter[str] = Counter()

    def read(sha256: str) -> Image | None:
        try:
            data = store.image(sha256)
            return decode_image(data, max_bytes=settings.upload_max_bytes, max_pixels=settings.image_max_pixels)
        except (FileNotFoundError, LookalikeError) as error:
            log.warning("Image %s of the catalogue can't be used: %s", sha256, error)
            problems[type(error).__name__] += 1
            return None

    with ThreadPoolExecutor(settings.encoder_threads + 1) as pool:
        for start in range(0, len(hashes), READ_AT_ONCE):
            some = hashes[start : start + READ_AT_ONCE]
            for sha256, image in zip(some, pool.map(read, some), strict=True):
                if image is not None:
                    yield sha256, image
    if problems.total() > len(hashes) / 2:
        kinds = ", ".join(f"{name} {count}" for name, count in problems.items())
        raise ReleaseNotBuilt(
            f"{problems.total()} of {len(hashes)} images of the catalogue can't be read from the store ({kinds}). "
            "Check LOOKALIKE_STORE_URL, or restore the store from its backup."
        )
