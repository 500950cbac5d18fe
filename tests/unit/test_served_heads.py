"""What an export adds to a trained network: whitening, a prefix, the mirror image; and several encoders as one."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from rich.progress import Progress as Bars

from tests.small_shop import FEATURES, small_backbone, small_plan, train, write_shop
from training.evaluate import main as evaluate
from training.export import export_run
from training.export import main as export
from training.joined_encoder import JoinedEncoder
from training.labelled_photos import LabelledPhotos, read_photos
from training.problem import TrainingProblem
from training.run import columns_of
from training.run_folder import RunFolder
from training.served import as_served, open_judged
from training.served_head import Additions
from worker.encoder import BACKBONES, Encoder, choose_runtime, load_encoder, open_encoder
from worker.encoder.head import Head
from worker.encoder.whitening import Whitening, whitening_of


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module", autouse=True)
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with small_backbone(tmp_path_factory.mktemp("weights")):
        yield


@pytest.fixture(scope="module", params=[None, 8], ids=["as pooled", "projected"])
def run_folder(request: pytest.FixtureRequest, shop: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "run")
    train(small_plan(shop, epochs=2, dim=request.param), folder)
    return folder


def exported(folder: RunFolder, out: Path, additions: Additions) -> Encoder:
    with Bars(disable=True) as bars:
        export_run(folder, out, bars, additions)
    return load_encoder("small", out, threads=1)


@pytest.fixture(scope="module")
def photos(shop: Path) -> LabelledPhotos:
    return read_photos(shop, columns_of(small_plan(shop)))


def seen(encoder: Encoder, photos: LabelledPhotos, rows: np.ndarray) -> np.ndarray:
    return encoder.encode([Image.open(photos.paths[row]).convert("RGB") for row in rows])


def unit(rows: np.ndarray) -> np.ndarray:
    lengths: np.ndarray = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / lengths)


def test_whitening_makes_every_axis_count_the_same() -> None:
    random = np.random.default_rng(0)
    embeddings = unit(random.normal(size=(400, 6)) * [5, 4, 3, 2, 1, 0.5] + [3, 0, 0, 0, 0, 0]).astype(np.float32)
    whitening = Whitening(6, 4)
    whitening.load_state_dict(whitening_of(embeddings, 4, shrinkage=0.0))
    with torch.no_grad():
        white = whitening(torch.from_numpy(7 * embeddings)).numpy()  # the length of what comes in does not count
    assert np.abs(white.mean(axis=0)).max() < 1e-4
    assert np.cov(white, rowvar=False) == pytest.approx(np.eye(4), abs=1e-3)


def test_whitening_needs_more_photos_than_numbers() -> None:
    with pytest.raises(ValueError, match="needs more than 6 photos, and there are 5"):
        whitening_of(np.eye(6, dtype=np.float32)[:5], 6)


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (Head(), 16),
        (Head(dim=8), 8),
        (Head(whitened=6), 6),
        (Head(dim=8, whitened=8, prefix=3), 3),
        (Head(prefix=16), 16),
    ],
)
def test_a_head_knows_the_length_of_its_embedding(head: Head, length: int) -> None:
    assert head.length(FEATURES) == length
    model = BACKBONES["small"].build_with(head).eval()
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, length)


@pytest.mark.parametrize("head", [Head(dim=8, prefix=9), Head(whitened=17), Head(whitened=4, prefix=5)])
def test_a_head_that_would_leave_out_more_than_there_is_is_refused(head: Head) -> None:
    with pytest.raises(ValueError, match="can't be made"):
        BACKBONES["small"].build_with(head)


def test_what_older_manifests_say_of_a_head_is_still_what_is_written() -> None:
    assert Head("gem", 8).to_dict() == {"pooling": "gem", "dim": 8}
    assert Head(flips=True).to_dict() == {"pooling": "average", "dim": None, "flips": True}
    assert Head(**Head(prefix=3, whitened=4).to_dict()) == Head(prefix=3, whitened=4)


def test_a_prefix_is_the_beginning_of_the_embedding(
    run_folder: RunFolder, photos: LabelledPhotos, tmp_path: Path
) -> None:
    whole = exported(run_folder, tmp_path / "whole", Additions())
    cut = exported(run_folder, tmp_path / "cut", Additions(prefix=5))
    rows = np.arange(6)
    assert cut.dim == 5
    assert cut.id != whole.id
    assert seen(cut, photos, rows) == pytest.approx(unit(seen(whole, photos, rows)[:, :5]), abs=1e-5)


def test_an_exported_whitening_is_that_of_the_photos_that_were_learned_from(
    run_folder: RunFolder, photos: LabelledPhotos, tmp_path: Path
) -> None:
    whole = exported(run_folder, tmp_path / "whole", Additions())
    white = exported(run_folder, tmp_path / "white", Additions(whitened=4))
    learned = seen(whole, photos, photos.rows_of("train"))
    state = whitening_of(learned, 4)
    turned = learned @ state["turn.weight"].numpy().T + state["turn.bias"].numpy()
    directions, expected = seen(white, photos, photos.rows_of("train")), unit(turned)
    # Axes of nearly the same width may turn with rounding; what counts is how alike photos are.
    assert directions @ directions.T == pytest.approx(expected @ expected.T, abs=0.02)
    assert json.loads((tmp_path / "white" / "manifest.json").read_text())["head"]["whitened"] == 4


def test_the_mirror_image_counts_as_much_as_the_photo(
    run_folder: RunFolder, photos: LabelledPhotos, tmp_path: Path
) -> None:
    flips = exported(run_folder, tmp_path / "flips", Additions(flips=True))
    pixels = np.stack([flips.pixels(Image.open(path).convert("RGB")) for path in photos.paths[:4]])
    mirrored = np.ascontiguousarray(pixels[:, :, ::-1])
    assert flips.embed(mirrored) == pytest.approx(flips.embed(pixels), abs=1e-5)
    plain = exported(run_folder, tmp_path / "plain", Additions())
    model = plain.network.model  # type: ignore[attr-defined]
    levels = (torch.from_numpy(pixels).float() - plain.network.mean) / plain.network.std  # type: ignore[attr-defined]
    with torch.no_grad():
        both = model(levels.permute(0, 3, 1, 2)) + model(levels.flip(2).permute(0, 3, 1, 2))
    assert flips.embed(pixels) == pytest.approx(unit(both.numpy()), abs=1e-5)
    assert np.abs(flips.embed(pixels) - plain.embed(pixels)).max() > 1e-3


def test_all_additions_are_served_by_openvino_as_by_torch(
    run_folder: RunFolder, photos: LabelledPhotos, tmp_path: Path
) -> None:
    reference = exported(run_folder, tmp_path / "encoder", Additions(whitened=6, prefix=4, flips=True))
    pixels = np.stack([reference.pixels(Image.open(path).convert("RGB")) for path in photos.paths[:60]])
    choice = choose_runtime(
        reference,  # type: ignore[arg-type]
        tmp_path,
        calibration=pixels[:30],
        held_out=pixels[30:],
        wanted="openvino",
    )
    served = open_encoder(choice.folder, 1)
    assert served.id == reference.id
    assert (served.embed(pixels) * reference.embed(pixels)).sum(axis=1).min() > 0.9999


def test_additions_that_do_not_fit_are_told(run_folder: RunFolder, tmp_path: Path) -> None:
    refused = CliRunner().invoke(export, [str(run_folder.path), "--prefix=99", f"--out={tmp_path}/encoder"])
    assert refused.exit_code == 1
    assert "can't be made 99 long" in refused.output
    assert not (tmp_path / "encoder").exists()


def test_an_ensemble_scores_by_the_mean_of_its_parts(
    run_folder: RunFolder, photos: LabelledPhotos, tmp_path: Path
) -> None:
    one = exported(run_folder, tmp_path / "one", Additions())
    other = exported(run_folder, tmp_path / "other", Additions(prefix=3))
    joined = open_judged(f"{tmp_path}/one+{tmp_path}/other", 1)
    each = [seen(encoder, photos, np.arange(8)) for encoder in (one, other)]
    both = seen(joined, photos, np.arange(8))
    assert joined.dim == one.dim + 3
    assert both @ both.T == pytest.approx((each[0] @ each[0].T + each[1] @ each[1].T) / 2, abs=1e-5)


def test_an_ensemble_is_judged_but_not_served(
    run_folder: RunFolder, photos: LabelledPhotos, shop: Path, tmp_path: Path
) -> None:
    exported(run_folder, tmp_path / "one", Additions())
    name = f"{tmp_path}/one+{tmp_path}/one"
    asked = [name, f"--data={shop}", "--attribute=base_colour", "--threads=1"]
    judged = CliRunner().invoke(evaluate, asked)
    assert judged.exit_code == 0, judged.output
    assert "encoder: joined-" in judged.stdout
    rows = photos.rows_of("train")
    with (
        pytest.raises(TrainingProblem, match="judged in torch only"),
        as_served(name, "openvino", photos, rows, rows, 1),
    ):
        pass


def test_encoders_that_see_photos_differently_are_not_joined(run_folder: RunFolder, shop: Path, tmp_path: Path) -> None:
    one = exported(run_folder, tmp_path / "one", Additions())
    folder = RunFolder(tmp_path / "run")
    train(small_plan(shop, epochs=1, size=24), folder)
    other = exported(folder, tmp_path / "other", Additions())
    with pytest.raises(TrainingProblem, match="same transform"):
        JoinedEncoder([one, other])


def test_a_run_learns_from_a_teacher_which_is_asked_once(run_folder: RunFolder, shop: Path, tmp_path: Path) -> None:
    exported(run_folder, tmp_path / "teacher", Additions())
    plan = small_plan(shop, epochs=3, teacher=f"{tmp_path}/teacher", teacher_weight=5.0, prefixes=(4,))
    folder = RunFolder(tmp_path / "runs" / "student")
    train(plan, folder)
    epochs = list(folder.figures())
    assert epochs[-1]["loss teacher"] < epochs[0]["loss teacher"]
    assert "loss at 4" in epochs[0]
    (kept,) = (tmp_path / "runs" / "cache").glob("taught-*.npy")
    rows = np.load(kept)
    assert np.linalg.norm(rows, axis=1).max() == pytest.approx(1, abs=1e-4)
