"""The drawn sample catalogue: rich, readable by an import, the same bytes each time, and never in anyone's way."""

import csv
import math
import sys
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image, ImageChops
from pydantic import TypeAdapter

from shared.schemas import ItemId, ItemWrite
from training.sample_catalogue import COLUMNS, generate_catalogue, is_complete, main, make_items
from training.sample_drawing import COLOURS, PATTERNS, SHAPES, Look, Pose, draw_product, outline

ITEMS = 24  # a little more than one of each shape


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "made" / "catalogue"
    generate_catalogue(folder, items=ITEMS, seed=3)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "products.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def corner(path: Path) -> tuple[int, ...]:
    with Image.open(path) as image:
        pixel = image.getpixel((3, 3))
    assert isinstance(pixel, tuple)
    return pixel


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["sample_catalogue", *map(str, arguments)])
    main()


def test_the_same_seed_gives_the_same_bytes(catalogue: Path, tmp_path: Path) -> None:
    generate_catalogue(tmp_path / "again", items=ITEMS, seed=3)
    assert contents(tmp_path / "again") == contents(catalogue)


def test_another_seed_gives_another_catalogue(catalogue: Path, tmp_path: Path) -> None:
    generate_catalogue(tmp_path / "other", items=ITEMS, seed=4)
    ours, theirs = contents(catalogue), contents(tmp_path / "other")
    fronts = [f"images/{row['id']}.jpg" for row in rows(catalogue)]
    assert len(fronts) == ITEMS
    assert not [name for name in (*fronts, "photo.jpg", "products.csv") if ours[name] == theirs[name]]


def test_by_default_there_are_enough_items_shapes_patterns_and_colours() -> None:
    items = make_items(360, 7)
    assert len({item.id for item in items}) == 360
    assert len({item.look.category for item in items}) >= 12
    assert len({item.look.pattern for item in items}) >= 6
    assert len({item.look.colour for item in items}) >= 10


def test_no_two_items_of_a_shape_share_colour_and_pattern() -> None:
    looks = Counter((item.look.category, item.look.colour, item.look.pattern) for item in make_items(360, 7))
    assert max(looks.values()) == 1


def test_one_item_in_ten_has_two_or_three_images() -> None:
    counts = Counter(len(item.images) for item in make_items(360, 7))
    assert counts.keys() == {1, 2, 3}
    assert counts[2] + counts[3] == 36


def test_every_row_is_an_item_that_the_api_accepts(catalogue: Path) -> None:
    found = rows(catalogue)
    assert len(found) == ITEMS
    for row in found:
        assert tuple(row) == COLUMNS
        assert all(row.values())
        assert float(row["price"]) > 0
        TypeAdapter(ItemId).validate_python(row["id"])
        ItemWrite.model_validate({"title": row["title"], "attributes": {name: row[name] for name in COLUMNS[3:]}})


def test_a_title_names_brand_colour_pattern_and_category(catalogue: Path) -> None:
    for row in rows(catalogue):
        assert row["title"].lower() == f"{row['brand']} {row['colour']} {row['pattern']} {row['category']}".lower()


def test_every_named_image_is_a_jpeg_of_320_pixels_and_none_is_left_over(catalogue: Path) -> None:
    named = [path for row in rows(catalogue) for path in row["image"].split("|")]
    for path in named:
        with Image.open(catalogue / path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (320, 320))
    assert sorted(named) == sorted(name for name in contents(catalogue) if name.startswith("images/"))
    assert len(named) > ITEMS


def test_fronts_lie_on_near_white_and_further_views_on_a_pale_colour(catalogue: Path) -> None:
    for row in rows(catalogue):
        front, *further = row["image"].split("|")
        assert min(corner(catalogue / front)) >= 245
        for path in further:
            assert 200 <= min(corner(catalogue / path)) < 240


def test_the_customer_photo_shows_an_item_of_the_catalogue_on_a_coloured_ground(catalogue: Path) -> None:
    assert (catalogue / "photo.txt").read_text().strip() in {row["id"] for row in rows(catalogue)}
    with Image.open(catalogue / "photo.jpg") as photo:
        assert photo.size == (640, 640)
    assert min(corner(catalogue / "photo.jpg")) < 200


@pytest.mark.parametrize("category", SHAPES)
@pytest.mark.parametrize("seed", ["one", "two", "three"])
def test_a_shape_lies_within_the_picture_and_fills_a_good_part_of_it(category: str, seed: str) -> None:
    drawing = draw_product(Look(category, "red", "plain", seed), Pose(rotation=3, scale=0.96), 240)
    covered = drawing.getchannel("A").point([0] + [255] * 255)
    box = covered.getbbox()
    assert box is not None
    assert min(box[0], box[1], 240 - box[2], 240 - box[3]) > 0
    assert covered.histogram()[255] > 0.1 * 240 * 240


@pytest.mark.parametrize("category", SHAPES)
def test_each_pattern_and_each_colour_of_a_shape_looks_different(category: str) -> None:
    looks = [Look(category, "red", pattern, "one") for pattern in PATTERNS]
    looks += [Look(category, colour, "plain", "one") for colour in COLOURS if colour != "red"]
    assert len({draw_product(look, Pose(), 120).tobytes() for look in looks}) == len(looks)


def test_one_look_is_drawn_alike_each_time_and_another_seed_varies_its_proportions() -> None:
    first, second, varied = (
        draw_product(Look("dress", "teal", "floral", seed), Pose(), 240) for seed in ("one", "one", "two")
    )
    assert ImageChops.difference(first, second).getbbox(alpha_only=False) is None
    assert ImageChops.difference(first, varied).getbbox(alpha_only=False) is not None


def test_four_smooth_points_make_nearly_a_circle() -> None:
    distances = [math.dist(point, (50, 50)) for point in outline("50,40~ 60,50~ 50,60~ 40,50~")]
    assert min(distances) > 9.8
    assert max(distances) < 10.2


def test_corners_are_joined_by_straight_lines() -> None:
    assert outline("10,10 30,10 30,40") == [(10, 10), (30, 10), (30, 40), (10, 10)]


def test_a_joined_path_is_its_own_mirror_image() -> None:
    points = outline("50,20~ 70,30 50,80", joined=True)
    assert max(x for x, _ in points) == 70
    assert sorted((round(100 - x, 6), round(y, 6)) for x, y in points[1:]) == sorted(
        (round(x, 6), round(y, 6)) for x, y in points[1:]
    )


def test_a_complete_folder_is_left_alone_and_the_command_says_so_in_one_line(
    catalogue: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in catalogue.rglob("*")}
    run(monkeypatch, "--out", catalogue, "--items", ITEMS, "--seed", 3)
    said = capsys.readouterr()
    assert said.out.count("\n") == 1
    assert "complete already" in said.out
    assert said.err == ""
    assert {path: path.stat().st_mtime_ns for path in catalogue.rglob("*")} == before


def test_the_command_prints_which_item_the_photo_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "--out", tmp_path / "made", "--items", 2)
    assert (tmp_path / "made" / "photo.txt").read_text().strip() in capsys.readouterr().out


@pytest.mark.parametrize("damaged", ["images/sample-0002.jpg", "products.csv", "photo.txt", "sample.json"])
def test_a_damaged_folder_is_not_complete(damaged: str, tmp_path: Path) -> None:
    generate_catalogue(tmp_path / "made", items=2)
    assert is_complete(tmp_path / "made", items=2)
    (tmp_path / "made" / damaged).write_bytes(b"{}")
    assert not is_complete(tmp_path / "made", items=2)


@pytest.mark.parametrize("lost", ["images/sample-0002.jpg", "products.csv"])
def test_a_folder_that_lost_a_file_is_made_again(lost: str, tmp_path: Path) -> None:
    generate_catalogue(tmp_path / "made", items=2)
    whole = contents(tmp_path / "made")
    (tmp_path / "made" / lost).unlink()
    generate_catalogue(tmp_path / "made", items=2)
    assert contents(tmp_path / "made") == whole


def test_other_arguments_replace_the_folder_and_leave_nothing_behind(tmp_path: Path) -> None:
    generate_catalogue(tmp_path / "made", items=4)
    generate_catalogue(tmp_path / "made", items=2)
    assert not (tmp_path / "made" / "images" / "sample-0003.jpg").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_folder_with_files_of_others_is_refused_and_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "products.csv").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--out", tmp_path, "--items", 2)
    assert stopped.value.code == 2
    assert "products.csv" in capsys.readouterr().err
    assert contents(tmp_path) == {"products.csv": b"mine"}


def test_a_file_added_to_our_folder_is_never_deleted(tmp_path: Path) -> None:
    generate_catalogue(tmp_path / "made", items=2)
    (tmp_path / "made" / "images" / "mine.jpg").write_text("mine")
    generate_catalogue(tmp_path / "made", items=2)
    with pytest.raises(FileExistsError, match=r"mine\.jpg"):
        generate_catalogue(tmp_path / "made", items=4)
    assert (tmp_path / "made" / "images" / "mine.jpg").read_text() == "mine"


def test_an_existing_file_is_refused_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        generate_catalogue(tmp_path / "file", items=2)
    assert (tmp_path / "file").read_text() == "mine"


def test_less_than_one_item_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        generate_catalogue(tmp_path / "made", items=0)
    assert list(tmp_path.iterdir()) == []
