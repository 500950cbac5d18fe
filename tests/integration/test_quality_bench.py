import json
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from benchmarks.losses import main as compare_losses
from benchmarks.quality import found_by_engine, measure
from tests.small_shop import small_backbone, write_shop
from training.labelled_photos import Columns, read_photos
from training.problem import TrainingProblem
from training.retrieval import search
from training.served import as_served, embed_photos, read_pixels
from worker.encoder import choose_runtime, load_encoder

pytestmark = pytest.mark.slow


def test_the_engine_finds_what_exact_search_finds(tmp_path: Path) -> None:
    photos = read_photos(write_shop(tmp_path), Columns(attributes=("base_colour",)))
    queries, index = photos.rows_of("test"), photos.rows_of("train", "val")
    with small_backbone(tmp_path):
        encoder = load_encoder("small", threads=1)
        by_engine = found_by_engine(encoder, photos, queries, index, lambda *_: None)
        embeddings, _ = embed_photos(encoder, photos, np.arange(len(photos)))
    expected = search(photos, embeddings, queries, index)
    assert by_engine.scores[:, :10] == pytest.approx(expected.scores[:, :10], abs=1e-5)
    engine, exact = by_engine.figures(), expected.figures()
    assert engine["p_at_5"].mean() == pytest.approx(exact["p_at_5"].mean(), abs=0.02)  # ties may fall otherwise
    assert engine["p_at_5"].mean() > 0.25


def test_the_lines_that_people_compare_are_printed(tmp_path: Path) -> None:
    photos = read_photos(write_shop(tmp_path), Columns(attributes=("base_colour",)))
    with small_backbone(tmp_path), Progress(disable=True) as progress:
        lines = dict(line.split(": ", 1) for line in measure("small", photos, 1, progress))
    assert lines["runtime"] == "openvino-int8"
    for name in ("p_at_1", "p_at_5", "p_at_10", "colour_at_5", "map_at_r"):
        assert 0 < float(lines[name]) <= 1
    loss = 100 * (float(lines["float32_p_at_5"]) - float(lines["p_at_5"]))
    assert float(lines["int8_loss_points"]) == pytest.approx(loss, abs=0.02)


def test_a_releases_encoder_is_judged_as_it_serves_and_in_no_other_runtime(tmp_path: Path) -> None:
    photos = read_photos(write_shop(tmp_path), Columns(attributes=("base_colour",)))
    with small_backbone(tmp_path), Progress(disable=True) as progress:
        reference = load_encoder("small", threads=1)
        pixels = read_pixels(photos.paths[:60], reference)
        choice = choose_runtime(
            reference, tmp_path, calibration=pixels[:30], held_out=pixels[30:], wanted="openvino-int8"
        )
        lines = dict(line.split(": ", 1) for line in measure(str(choice.folder), photos, 1, progress))
        with (
            pytest.raises(TrainingProblem, match="made for openvino-int8 already"),
            as_served(str(choice.folder), "openvino", photos, photos.rows_of("train"), photos.rows_of("val"), 1),
        ):
            pass
    assert (lines["encoder"], lines["runtime"]) == (choice.manifest["id"], "openvino-int8")
    assert 0 < float(lines["p_at_5"]) <= 1
    assert "int8_loss_points" not in lines


def test_a_photo_that_can_not_be_read_is_left_out_of_the_queries(tmp_path: Path) -> None:
    photos = read_photos(write_shop(tmp_path), Columns(attributes=("base_colour",)))
    queries, index = photos.rows_of("test"), photos.rows_of("train", "val")
    photos.paths[queries[1]].write_bytes(b"no image")
    with small_backbone(tmp_path):
        found = found_by_engine(load_encoder("small", threads=1), photos, queries, index, lambda *_: None)
        assert found.queries.tolist() == [queries[0], *queries[2:]]
        for row in queries:
            photos.paths[row].unlink(missing_ok=True)
        with pytest.raises(TrainingProblem, match="None of the 24 photos that ask can be read"):
            found_by_engine(load_encoder("small", threads=1), photos, queries, index, lambda *_: None)


def test_losses_are_compared_at_one_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = write_shop(tmp_path)
    monkeypatch.setattr("benchmarks.report.RESULTS", tmp_path / "results")
    asked = [f"--data={table}", "--backbone=small", "--epochs=1", "--threads=1", f"--cache={tmp_path}/cache"]
    with small_backbone(tmp_path):
        for _ in range(2):  # the second time, all is there already
            compare_losses([*asked, f"--scratch={tmp_path}/runs", "--losses", "cross-entropy"])
    rows = json.loads((tmp_path / "results" / "losses.json").read_text())["rows"]
    assert {row["loss"] for row in rows} == {"triplet-hard", "cross-entropy", "none (ImageNet)"}
    assert all(row["p_at_5"]["low"] <= row["p_at_5"]["mean"] <= row["p_at_5"]["high"] for row in rows)
    assert [row["p_value"] for row in rows if row["loss"] == "triplet-hard"] == [1]
    page = (tmp_path / "results" / "losses.md").read_text()
    for row in rows:
        assert f"| {row['loss']} | {row['p_at_1']['mean']:.4f}" in page
