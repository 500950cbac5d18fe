"""Photos of people's own clothes through the served path, against the path that reads every pixel."""

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shared.schemas import Crop
from worker.decode import decode_image, decode_pixels
from worker.encoder import Encoder, choose_runtime, load_encoder, open_encoder

DATASETS = Path(os.environ.get("LOOKALIKE_DATASETS", Path(__file__).parents[3] / "shared" / "datasets"))
STREET = DATASETS / "street" / "photos.csv"
MAX_BYTES, MAX_PIXELS = 2**26, 10**8

pytestmark = pytest.mark.skipif(not STREET.exists(), reason=f"{STREET} is not there")


@pytest.fixture(scope="module")
def photos() -> list[bytes]:
    with STREET.open(newline="", encoding="utf-8") as file:
        return [(STREET.parent / row["image"]).read_bytes() for row in list(csv.DictReader(file))[::3]][:200]


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encoder]:
    before = torch.get_num_threads()
    reference = load_encoder("tf_efficientnet_lite0", threads=2)
    held_out = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3), dtype=np.uint8)
    choice = choose_runtime(
        reference, tmp_path_factory.mktemp("lite0"), calibration=held_out[:0], held_out=held_out, wanted="openvino"
    )
    yield open_encoder(choice.folder, threads=2)
    torch.set_num_threads(before)


def whole(encoder: Encoder, photo: bytes, crop: Crop | None = None) -> np.ndarray:
    """Return what the network sees when every pixel of the file is decoded."""
    return encoder.pixels(decode_image(photo, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS, crop=crop))


def served(encoder: Encoder, photo: bytes, crop: Crop | None = None) -> np.ndarray:
    return decode_pixels(photo, encoder.transform, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS, crop=crop)


def cosines(encoder: Encoder, one: list[np.ndarray], other: list[np.ndarray]) -> np.ndarray:
    embeddings = [encoder.embed(np.stack(views)) for views in (one, other)]
    products: np.ndarray = (embeddings[0].astype(np.float64) * embeddings[1]).sum(axis=1)
    return products


def enlarged(photo: bytes, width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(photo)).convert("RGB").resize((width, height)).save(file, "JPEG", quality=92)
    return file.getvalue()


def collage(photos: list[bytes], width: int, height: int) -> bytes:
    """Return a JPEG that is as busy in each of its pixels as a photo that nobody scaled down."""
    picture = Image.new("RGB", (width, height))
    for n, photo in enumerate(photos):
        column, row = n % 6, n // 6
        picture.paste(Image.open(io.BytesIO(photo)).convert("RGB"), (column * width // 6, row * height // 6))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95)
    return file.getvalue()


def test_200_street_photos_embed_as_the_reference_path_has_them(lite0: Encoder, photos: list[bytes]) -> None:
    assert len(photos) == 200
    reference = torch_reference(photos)
    seen = np.stack([served(lite0, photo) for photo in photos])
    products = (lite0.embed(seen).astype(np.float64) * reference).sum(axis=1)
    assert products.min() >= 0.999, f"smallest cosine {products.min():.6f}"


def torch_reference(photos: list[bytes]) -> np.ndarray:
    """Return embeddings as training's evaluation has them: all pixels, the transform to floats, torch."""
    encoder = load_encoder("tf_efficientnet_lite0", threads=2)
    images = [decode_image(photo, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS) for photo in photos]
    with torch.inference_mode():
        parts = [encoder.network.model(torch.from_numpy(encoder.transform([image]))) for image in images]
    embeddings: np.ndarray = torch.nn.functional.normalize(torch.cat(parts)).numpy()
    return embeddings


@pytest.mark.parametrize("size", [(1280, 1706), (1536, 2048), (2400, 3200), (2448, 3264), (4000, 2250)])
def test_large_photos_are_decoded_smaller_and_embed_the_same(
    lite0: Encoder, photos: list[bytes], size: tuple[int, int]
) -> None:
    large = [enlarged(photo, *size) for photo in photos[::50]] + [collage(photos[:36], *size)]
    views = [served(lite0, photo) for photo in large]
    products = cosines(lite0, views, [whole(lite0, photo) for photo in large])
    assert products.min() >= 0.999, f"smallest cosine {products.min():.6f}"
    assert not any(np.array_equal(view, whole(lite0, photo)) for view, photo in zip(views, large, strict=True))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_crop_of_a_large_turned_photo_is_the_same_part(lite0: Encoder, photos: list[bytes], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.open(io.BytesIO(photos[3])).resize((2400, 3200)).save(file, "JPEG", exif=exif, quality=92)
    crop = Crop(x=0.13, y=0.07, width=0.61, height=0.77)
    view = served(lite0, file.getvalue(), crop)
    assert cosines(lite0, [view], [whole(lite0, file.getvalue(), crop)]).min() >= 0.999


def test_a_small_crop_of_a_large_photo_is_seen_in_all_its_pixels(lite0: Encoder, photos: list[bytes]) -> None:
    large = enlarged(photos[0], 2400, 3200)
    crop = Crop(x=0.4, y=0.3, width=0.2, height=0.2)
    differences = served(lite0, large, crop).astype(int) - whole(lite0, large, crop)
    assert np.abs(differences).max() <= 1
