"""From a run to what is served: export, opening, runtimes, judgement, report."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from rich.progress import Progress as Bars
from safetensors.numpy import load_file

from tests.small_shop import small_backbone, small_plan, train, write_shop
from training.evaluate import main as evaluate
from training.export import export_run
from training.export import main as export
from training.judgement import compare, judge
from training.labelled_photos import Columns, read_photos
from training.run_folder import RunFolder
from training.served import open_judged
from worker.encoder import BACKBONES, EncoderUnavailable, choose_runtime, encoder_id, load_encoder, open_encoder
from worker.encoder.head import Head

COLUMNS = Columns(attributes=("base_colour",))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module", autouse=True)
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with small_backbone(tmp_path_factory.mktemp("weights")):
        yield


@pytest.fixture(scope="module")
def run_folder(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(small_plan(shop, epochs=4, dim=8, size=24), RunFolder(folder))
    return folder


@pytest.fixture(scope="module")
def encoder_folder(run_folder: Path) -> Path:
    with Bars(disable=True) as bars:
        export_run(RunFolder(run_folder), run_folder.parent / "encoder", bars)
    return run_folder.parent / "encoder"


def test_an_encoder_folder_tells_all_that_it_promises(encoder_folder: Path, run_folder: Path) -> None:
    manifest = json.loads((encoder_folder / "manifest.json").read_text())
    assert manifest["files"].keys() == {"weights.safetensors", "classes.json", "centroids.safetensors", "metrics.json"}
    assert (manifest["dim"], manifest["head"]) == (8, {"pooling": "average", "dim": 8})
    assert (manifest["transform"]["size"], manifest["transform"]["resize"]) == (24, 27)
    trained = manifest["trained"]
    assert trained["data_fingerprint"] == RunFolder(run_folder).about()["data_fingerprint"]
    assert 0 < trained["val"]["p_at_5"] <= 1
    assert trained["score_meaning"]["a"] > 0  # a higher score means a likelier hit
    classes = json.loads((encoder_folder / "classes.json").read_text())
    centroids = load_file(encoder_folder / "centroids.safetensors")["centroids"]
    assert [row["name"] for row in classes] == ["bar", "cross", "disc", "ring"]
    assert np.linalg.norm(centroids, axis=1) == pytest.approx(np.ones(4), abs=1e-5)


def test_a_trained_encoder_is_opened_by_its_folder_under_its_id(encoder_folder: Path) -> None:
    encoder = load_encoder("small", encoder_folder)
    assert encoder.id == encoder_id("small", encoder_folder) == encoder.manifest["base_id"]
    assert encoder.id.startswith("small-")
    assert encoder.encode([Image.new("RGB", (30, 50), "red")]).shape == (1, 8)


def test_the_weights_of_an_encoder_are_weights_to_start_from_whatever_its_head(shop: Path, tmp_path: Path) -> None:
    train(small_plan(shop, epochs=1, dim=8, pooling="gem"), RunFolder(tmp_path / "run"))
    with Bars(disable=True) as bars:
        export_run(RunFolder(tmp_path / "run"), tmp_path / "encoder", bars)
    weights = str(tmp_path / "encoder" / "weights.safetensors")
    train(small_plan(shop, epochs=1, weights=weights), RunFolder(tmp_path / "again"))
    assert (tmp_path / "again" / "best.pt").exists()


def test_the_id_names_the_head_too(encoder_folder: Path) -> None:
    weights, transform = encoder_folder / "weights.safetensors", BACKBONES["small"].transform
    usual = encoder_id("small", weights, transform)
    assert encoder_id("small", weights, transform, Head()) == usual
    assert (
        len(
            {
                usual,
                encoder_id("small", weights, transform, Head(dim=8)),
                encoder_id("small", weights, transform, Head("gem")),
            }
        )
        == 3
    )


def test_a_folder_of_another_backbone_is_refused_with_the_setting_that_helps(encoder_folder: Path) -> None:
    for ask in (load_encoder, encoder_id):
        with pytest.raises(EncoderUnavailable, match=r"of 'small', not of 'resnet50'.*LOOKALIKE_ENCODER=small"):
            ask("resnet50", encoder_folder)


def test_a_folder_that_is_no_encoder_or_was_changed_is_refused(encoder_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailable, match=r"manifest\.json can't be read"):
        load_encoder("small", tmp_path)
    copy = shutil.copytree(encoder_folder, tmp_path / "copy")
    (copy / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(EncoderUnavailable, match="SHA-256 differs"):
        load_encoder("small", copy)


def test_a_trained_encoder_gets_its_runtimes_as_any_other(encoder_folder: Path, shop: Path, tmp_path: Path) -> None:
    reference = load_encoder("small", encoder_folder)
    pixels = np.stack([reference.pixels(Image.open(path)) for path in read_photos(shop, COLUMNS).paths[:60]])
    choice = choose_runtime(reference, tmp_path, calibration=pixels[:30], held_out=pixels[30:], wanted="openvino")
    served = open_encoder(choice.folder, 1)
    assert served.id == reference.id
    assert choice.manifest["trained"] == reference.manifest["trained"]
    assert np.abs(served.embed(pixels) - reference.embed(pixels)).max() < 1e-4
    with pytest.raises(EncoderUnavailable, match=r"exported to openvino.*training\.export"):
        load_encoder("small", choice.folder)


def test_a_judgement_counts_what_it_says(encoder_folder: Path, shop: Path) -> None:
    photos = read_photos(shop, COLUMNS)
    queries, index = photos.rows_of("test"), photos.rows_of("train", "val")
    judgement = judge(open_judged(str(encoder_folder), 1), photos, queries, index)
    kinds = photos.values["article_type"]
    expected = np.mean(
        [
            (kinds[rows[:5]] == kinds[query]).sum() / 5
            for query, rows in zip(queries, judgement.found.neighbours, strict=True)
        ]
    )
    assert judgement.each["p_at_5"].mean() == pytest.approx(expected)
    assert judgement.each["p_at_5"].mean() > 0.4  # four kinds: chance gives 0.25
    classes = judgement.classes()
    assert sum(row.queries for row in classes) == len(queries)
    assert [row.p_at_5 for row in classes] == sorted(row.p_at_5 for row in classes)
    wrong = sum(count for _, _, count in judgement.confusions())
    assert wrong == round((1 - judgement.each["p_at_1"].mean()) * len(queries))
    assert compare(judgement, judgement)["p_at_5"].p_value == 1
    assert judgement.cost.milliseconds > 0


def test_the_commands_export_judge_compare_and_report(run_folder: Path, shop: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(export, [str(run_folder), f"--out={tmp_path}/encoder", "--threads=1"])
    assert done.exit_code == 0, done.output
    assert "LOOKALIKE_ENCODER=small LOOKALIKE_ENCODER_WEIGHTS_PATH=" in done.output
    asked = [f"--data={shop}", "--attribute=base_colour", "--threads=1"]
    done = runner.invoke(
        evaluate, [f"{tmp_path}/encoder", "--against=small", f"--out={tmp_path}/report", "--runtime=openvino", *asked]
    )
    assert done.exit_code == 0, done.output
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert lines["runtime"] == "openvino"
    assert 0 < float(lines["p_at_5"]) <= 1
    assert "(p " in lines["p_at_5_gain"]
    page = (tmp_path / "report" / "report.md").read_text()
    for name in ("sheet.jpg", "worst.jpg", "map.png"):
        assert f"({name})" in page
        with Image.open(tmp_path / "report" / name) as picture:
            assert picture.width > 300
    assert json.loads((tmp_path / "report" / "figures.json").read_text())["figures"]["p_at_5"]["mean"] == pytest.approx(
        float(lines["p_at_5"]), abs=1e-4
    )
    assert "## Compared with small-" in page


def test_a_catalogue_without_the_usual_attributes_is_judged_by_its_label(shop: Path) -> None:
    done = CliRunner().invoke(evaluate, ["small", f"--data={shop}", "--threads=1"])
    assert done.exit_code == 0, done.output
    names = [line.split(": ")[0] for line in done.stdout.splitlines()]
    assert "colour_at_5" in names
    assert "p_at_5_sub_category" not in names
    assert {"milliseconds", "photos_per_second", "bytes"} <= {*names}


def test_one_query_alone_has_a_report(shop: Path, tmp_path: Path) -> None:
    table = tmp_path / "one.csv"
    lines = shop.read_text().splitlines()
    first_asked = next(line for line in lines if line.endswith(",test"))
    table.write_text("\n".join([line for line in lines if not line.endswith(",test")] + [first_asked]) + "\n")
    (tmp_path / "images").symlink_to(shop.parent / "images")
    done = CliRunner().invoke(evaluate, ["small", f"--data={table}", f"--out={tmp_path}/report", "--threads=1"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "report" / "map.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (export, ["{there}"], "is not the plan of a run"),
        (
            evaluate,
            ["{there}", "--data={shop}", "--attribute=base_colour"],
            "neither the folder of an encoder nor a backbone",
        ),
        (evaluate, ["small", "--data={there}"], "neither products.csv nor folders"),
        (evaluate, ["small", "--data={shop}", "--attribute=hue"], "has no column 'hue'"),
    ],
)
def test_what_can_not_be_judged_or_exported_is_told(
    command: object, arguments: list[str], message: str, shop: Path, tmp_path: Path
) -> None:
    given = [argument.format(there=tmp_path, shop=shop) for argument in arguments]
    refused = CliRunner().invoke(command, given)  # type: ignore[arg-type]
    assert refused.exit_code == 1
    assert message in refused.output
    assert "Traceback" not in refused.output


def test_a_frame_tells_a_hit_from_a_miss(shop: Path, tmp_path: Path) -> None:
    from training.pictures import FRAME, GAP, TILE, retrieval_sheet
    from training.retrieval import Found

    photos = read_photos(shop, COLUMNS)
    kinds = photos.values["article_type"]
    hit, miss = np.flatnonzero(kinds == kinds[0])[1], np.flatnonzero(kinds != kinds[0])[0]
    found = Found(photos, np.array([0]), np.array([hit, miss]), np.array([[hit, miss]]), np.array([[0.9, 0.8]]))
    retrieval_sheet(found, [0], tmp_path / "sheet.jpg")
    side = TILE + 2 * FRAME + GAP
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        first, second = (sheet.getpixel((2 * GAP + column * side + 2, GAP + 60)) for column in (1, 2))
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    assert first[1] > first[0] + 60
    assert second[0] > second[1] + 60
