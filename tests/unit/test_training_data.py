import csv
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.small_shop import small_backbone, write_shop
from training.augmentation import Augmentation
from training.batches import class_batches
from training.labelled_photos import Columns, LabelledPhotos, read_photos, split_of
from training.pixel_cache import decode_photos
from training.problem import TrainingProblem
from training.run import number_classes, usable_rows
from worker.encoder import BACKBONES, Transform, load_encoder

TRANSFORM = Transform(0.125, 36, 32, "bicubic", (0.5, 0.4, 0.45), (0.25, 0.3, 0.2))


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(number: int, **changes: str) -> dict[str, str]:
    return {"id": str(number), "article_type": "hat", "image": f"{number}.jpg", "split": "train"} | changes


def test_a_table_is_read_with_columns_under_other_names(tmp_path: Path) -> None:
    table = write_table(
        tmp_path / "t.csv",
        [
            {"sku": "7", "file": "a.jpg|b.jpg", "kind": "hat", "hue": "red"},
            {"sku": "8", "file": "c.jpg", "kind": "cap", "hue": ""},
        ],
    )
    photos = read_photos(table, Columns("sku", "file", "kind", ("hue",), None))
    assert photos.paths == (tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "c.jpg")
    assert photos.items == ("7", "7", "8")
    assert photos.values["kind"].tolist() == ["hat", "hat", "cap"]
    assert photos.values["hue"].tolist() == ["red", "red", ""]
    assert photos.splits[0] == photos.splits[1] == split_of("7")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1), row(1)], r"lines 2 and 3 have the same id '1'"),
        ([row(1), row(2, article_type="")], "line 3: article_type is empty"),
        ([row(1, split="dev")], r"line 2: split is 'dev', and must be one of train, val, test"),
        ([{"id": "1", "image": "a.jpg"}], r"has no column 'article_type'; it has: id, image.*--label"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path: Path, rows: list[dict[str, str]], message: str) -> None:
    with pytest.raises(TrainingProblem, match=message):
        read_photos(write_table(tmp_path / "t.csv", rows), Columns())


def test_an_empty_split_and_a_missing_source_are_told(tmp_path: Path) -> None:
    photos = read_photos(write_table(tmp_path / "t.csv", [row(1), row(2)]), Columns())
    with pytest.raises(TrainingProblem, match=r"'val' is empty \(train: 2, val: 0, test: 0\)"):
        photos.rows_of("train", "val")
    with pytest.raises(TrainingProblem, match="There is no"):
        read_photos(tmp_path / "gone", Columns())
    with pytest.raises(TrainingProblem, match=r"neither products.csv nor folders"):
        read_photos(tmp_path, Columns())


def test_folders_named_by_class_are_read(tmp_path: Path) -> None:
    for name in ("cap/1.jpg", "cap/deep/2.png", "hat/1.jpg", "hat/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    photos = read_photos(tmp_path, Columns(label="kind"))
    assert photos.items == ("cap/1.jpg", "cap/deep/2.png", "hat/1.jpg")
    assert photos.values["kind"].tolist() == ["cap", "cap", "hat"]
    with pytest.raises(TrainingProblem, match=r"no hue\. Leave out --attribute"):
        read_photos(tmp_path, Columns(attributes=("hue",)))


def test_a_table_in_another_encoding_is_refused_and_a_short_line_has_empty_values(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes("id,article_type,image,split\n1,Hüte,1.jpg,train\n".encode("latin-1"))
    with pytest.raises(TrainingProblem, match="no CSV file in UTF-8"):
        read_photos(table, Columns())
    table.write_text("id,article_type,image,split,hue\n1,hat,1.jpg,train\n")
    assert read_photos(table, Columns(attributes=("hue",))).values["hue"].tolist() == [""]
    table.write_text("id,article_type,image,split\n1,hat\n")
    with pytest.raises(TrainingProblem, match="line 2: image is empty"):
        read_photos(table, Columns())


def test_splits_by_item_have_about_their_shares() -> None:
    counts = Counter(split_of(str(item)) for item in range(4000))
    assert [round(counts[split] / 4000, 1) for split in ("train", "val", "test")] == [0.7, 0.1, 0.2]


def test_decoded_photos_are_what_the_transform_makes_of_them(tmp_path: Path) -> None:
    photos = read_photos(write_shop(tmp_path, 12), Columns())
    odd = tmp_path / "odd.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 50, 3), dtype=np.uint8)).save(odd)
    paths = (*photos.paths, odd)
    with small_backbone(tmp_path):
        encoder = load_encoder("small")
        squares = decode_photos(paths, BACKBONES["small"].transform, tmp_path / "cache")
        for at, path in enumerate(paths):
            with Image.open(path) as image:
                assert np.array_equal(squares.centres(np.array([at]))[0], encoder.pixels(image.convert("RGB")))


def test_an_unreadable_photo_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos = read_photos(write_shop(tmp_path, 60), Columns())
    photos.paths[3].write_bytes(b"no image")
    photos.paths[5].unlink()
    with caplog.at_level(logging.WARNING):
        squares = decode_photos(photos.paths, TRANSFORM, tmp_path / "cache")
    assert squares.unreadable.keys() == {3, 5}
    assert "3.png is left out" in caplog.text
    learned, judged = usable_rows(photos, squares)
    assert not {3, 5} & {*learned.tolist(), *judged.tolist()}
    assert len(learned) + len(judged) == 46


def test_a_catalogue_of_unreadable_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingProblem, match="3 of 3 photos can't be read"):
        decode_photos([tmp_path / f"{n}.jpg" for n in range(3)], TRANSFORM, tmp_path / "cache")


def test_a_changed_photo_is_decoded_again(tmp_path: Path) -> None:
    photos = read_photos(write_shop(tmp_path, 8), Columns())
    before = decode_photos(photos.paths, TRANSFORM, tmp_path / "cache")
    Image.new("RGB", (40, 40), "black").save(photos.paths[0])
    after = decode_photos(photos.paths, TRANSFORM, tmp_path / "cache")
    assert after.fingerprint != before.fingerprint
    assert after.pixels[0].max() == 0
    assert np.array_equal(after.pixels[1:], before.pixels[1:])


def test_classes_with_one_item_are_left_out_of_training_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = read_photos(write_shop(tmp_path, 60), Columns())
    kinds = photos.values["article_type"].astype("<U20")
    kinds[0:2] = "only one"
    items = ("0", "0", *photos.items[2:])  # two photos of one item
    lonely = LabelledPhotos(photos.paths, items, photos.label, {photos.label: kinds}, photos.splits)
    with caplog.at_level(logging.WARNING):
        learned, _ = usable_rows(lonely, decode_photos(lonely.paths, TRANSFORM, tmp_path / "cache"))
    assert not {0, 1} & set(learned.tolist())
    assert "only one" in caplog.text


def test_what_val_has_and_train_lacks_is_no_class() -> None:
    values = {"kind": np.array(["b", "a", "b", "z", ""])}
    photos = LabelledPhotos((Path("x"),) * 5, tuple("12345"), "kind", values, np.array(["train"] * 3 + ["val"] * 2))
    numbers, names = number_classes(photos, np.array([0, 1, 2]))
    assert names == {"kind": ["a", "b"]}
    assert numbers["kind"].tolist() == [1, 0, 1, -1, -1]


def test_every_photo_is_in_an_epoch_and_has_others_of_its_class_beside_it() -> None:
    labels = np.repeat([0, 1, 2, 3, 4], [50, 7, 2, 23, 4])
    batches = class_batches(labels, 4, 4, np.random.default_rng(0))
    seen = Counter(np.concatenate(batches).tolist())
    assert seen.keys() == set(range(len(labels)))
    assert sum(seen.values()) == 52 + 8 + 4 + 24 + 4
    for batch in batches:
        assert len(batch) in (12, 16)
        assert min(Counter(labels[batch].tolist()).values()) >= 4


def test_a_class_is_in_a_batch_twice_only_where_it_must() -> None:
    labels = np.repeat(np.arange(10), 8)
    for batch in class_batches(labels, 5, 4, np.random.default_rng(1)):
        assert sorted(Counter(labels[batch].tolist()).values()) == [4] * 5


def test_batches_depend_on_the_seed_alone() -> None:
    labels = np.repeat(np.arange(6), 5)
    one, same, other = (class_batches(labels, 3, 2, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_batches_of_one_class_are_refused() -> None:
    with pytest.raises(ValueError, match="two classes"):
        class_batches(np.zeros(9, int), 4, 4, np.random.default_rng(0))


def test_augmentation_varies_within_its_limits_and_repeats_itself() -> None:
    square = np.asarray(Image.linear_gradient("L").convert("RGB").resize((64, 64)))
    vary = Augmentation(48, min_area=0.5, jitter=0.2)
    before = square.copy()
    made = [vary(square, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert all(picture.shape == (48, 48, 3) and picture.dtype == np.uint8 for picture in made)
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    assert np.array_equal(square, before)


def test_augmentation_that_may_change_nothing_only_scales() -> None:
    square = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    crops = [Augmentation(32, 1, 0, flips=False)(square, np.random.default_rng(seed)) for seed in range(5)]
    assert all(np.array_equal(crop, square) for crop in crops)
    with pytest.raises(ValueError, match="min_area"):
        Augmentation(32, min_area=0)


def test_half_of_the_photos_are_mirrored() -> None:
    square = np.zeros((32, 32, 3), np.uint8)
    square[:, 16:] = 200
    vary = Augmentation(32, 0.9, 0)
    mirrored = [vary(square, np.random.default_rng(seed))[16, 2, 0] > 100 for seed in range(200)]
    assert 75 < sum(mirrored) < 125
