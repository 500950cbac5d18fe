import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from worker.encoder import (
    BACKBONES,
    Choice,
    Encoder,
    EncoderUnavailable,
    Transform,
    choose_runtime,
    load_encoder,
    open_encoder,
    read_manifest,
)
from worker.encoder.backbones import Backbone
from worker.encoder.torch_encoder import TorchEncoder

SIZE, DIM = 32, 24


def build_tiny() -> torch.nn.Module:
    """Return a network of the same kinds of layers as the real ones."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
        torch.nn.BatchNorm2d(16),
        torch.nn.ReLU6(),
        torch.nn.Conv2d(16, 16, 3, padding=1, groups=16),
        torch.nn.ReLU6(),
        torch.nn.Conv2d(16, DIM // 4, 1, bias=False),
        torch.nn.AvgPool2d(8),
        torch.nn.Flatten(),
    )


def pixels(count: int, seed: int = 0) -> np.ndarray:
    """Return uint8 (count, SIZE, SIZE, 3) with coarse spots, no two alike."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    products: np.ndarray = one.astype(np.float64) * other
    return products.sum(axis=1)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchEncoder]:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(build_tiny().state_dict(), path)
    transform = Transform(0.125, SIZE, SIZE, "bicubic", (0.5, 0.4, 0.45), (0.25, 0.3, 0.2))
    BACKBONES["tiny"] = Backbone(DIM, transform, build_tiny, lambda: path)
    yield load_encoder("tiny")
    del BACKBONES["tiny"]


@pytest.fixture(scope="module", params=["openvino-int8", "openvino", "torch"])
def choice(request: pytest.FixtureRequest, reference: TorchEncoder, tmp_path_factory: pytest.TempPathFactory) -> Choice:
    into = tmp_path_factory.mktemp("encoders")
    return choose_runtime(
        reference, into, calibration=pixels(20), held_out=pixels(30, seed=1), wanted=request.param, threads=1
    )


@pytest.fixture(scope="module")
def encoder(choice: Choice) -> Encoder:
    return open_encoder(choice.folder, threads=1)


def test_a_packaged_encoder_computes_what_the_reference_does(
    encoder: Encoder, choice: Choice, reference: TorchEncoder
) -> None:
    unseen = pixels(25, seed=2)
    embeddings = encoder.embed(unseen)
    least = 0.98 if choice.manifest["runtime"] == "openvino-int8" else 0.9999
    assert embeddings.shape == (25, DIM)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    assert cosines(embeddings, reference.embed(unseen)).mean() > least
    assert cosines(embeddings[1:], embeddings[:-1]).mean() < 0.97


def test_only_a_quantised_encoder_has_an_id_of_its_own(choice: Choice, reference: TorchEncoder) -> None:
    manifest = read_manifest(choice.folder)
    assert manifest == choice.manifest
    assert manifest["base_id"] == reference.id
    assert choice.folder.name == manifest["id"]
    if manifest["runtime"] == "openvino-int8":
        assert manifest["id"].startswith(f"{reference.id}.int8-")
    else:
        assert manifest["id"] == reference.id
    assert choice.tried[-1].passed
    assert manifest["gate"]["tried"] == json.loads(json.dumps([trial.to_dict() for trial in choice.tried]))
    assert manifest["gate"]["tried"][-1]["images_per_second"] > 0


def test_no_pixels_give_no_rows(encoder: Encoder) -> None:
    assert encoder.embed(pixels(0)).shape == (0, DIM)
    assert encoder.encode([]).shape == (0, DIM)


def test_pixels_are_not_modified_and_may_be_read_only(encoder: Encoder) -> None:
    batch = pixels(3)
    batch.setflags(write=False)
    encoder.embed(batch)
    assert np.array_equal(batch, pixels(3))
    every_other = pixels(6)[::2]
    assert cosines(encoder.embed(every_other), encoder.embed(every_other.copy())).min() > 0.9999


def test_passes_side_by_side_compute_what_one_alone_does(choice: Choice) -> None:
    shared = open_encoder(choice.folder, threads=2)
    assert shared.passes_at_once == (1 if choice.manifest["runtime"] == "torch" else 2)
    batches = [pixels(1 + number % 5, seed=number) for number in range(40)]
    alone = [shared.embed(batch) for batch in batches]
    with ThreadPoolExecutor(5) as pool:  # more than may run at once
        together = list(pool.map(shared.embed, batches))
    for one, other in zip(alone, together, strict=True):
        assert cosines(one, other).min() > 0.9999


@pytest.mark.parametrize(
    "wrong",
    [pixels(2).astype(np.float32), pixels(2)[:, :16], pixels(2)[0], pixels(2).transpose(0, 3, 1, 2)],
    ids=["floats", "height", "one image", "channels first"],
)
def test_pixels_of_another_form_are_refused(encoder: Encoder, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"pixels must be uint8 \(n, 32, 32, 3\)"):
        encoder.embed(wrong)


def test_an_image_alone_gives_what_it_gives_in_a_batch(encoder: Encoder, choice: Choice) -> None:
    batch = pixels(21)
    alone = np.concatenate([encoder.embed(one[None]) for one in batch])
    assert cosines(alone, encoder.embed(batch)).min() > 0.9999


def test_rows_belong_to_the_caller(encoder: Encoder) -> None:
    first = encoder.embed(pixels(4))
    kept = first.copy()
    encoder.embed(pixels(4, seed=5))
    assert np.array_equal(first, kept)


def test_threads_get_their_own_rows(encoder: Encoder) -> None:
    batches = [pixels(1 + n % 5, seed=n) for n in range(24)]
    expected = [encoder.embed(batch) for batch in batches]
    worst: list[float] = []

    def embed_some(start: int) -> None:
        found = [(encoder.embed(batches[n]), expected[n]) for n in range(start, len(batches), 4)]
        worst.extend(float(cosines(rows, wanted).min()) for rows, wanted in found)

    threads = [threading.Thread(target=embed_some, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(worst) == len(batches)
    assert min(worst) > 0.9999


def test_a_changed_file_is_refused_with_a_remedy(choice: Choice, tmp_path: Path) -> None:
    name, copy = copied(choice, tmp_path)
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(EncoderUnavailable, match=rf"{name} is not what was saved.*Delete that folder.*build_release"):
        open_encoder(copy, threads=1)


def test_a_missing_file_is_refused_with_a_remedy(choice: Choice, tmp_path: Path) -> None:
    name, copy = copied(choice, tmp_path)
    (copy / name).unlink()
    with pytest.raises(EncoderUnavailable, match=rf"{name} is missing. Delete that folder"):
        open_encoder(copy, threads=1)


@pytest.mark.parametrize("manifest", [None, "", "{", "{}", "[]", '"text"'])
def test_a_folder_without_a_whole_manifest_is_refused(choice: Choice, tmp_path: Path, manifest: str | None) -> None:
    _, copy = copied(choice, tmp_path)
    (copy / "manifest.json").unlink()
    if manifest is not None:
        (copy / "manifest.json").write_text(manifest)
    with pytest.raises(EncoderUnavailable, match=r"manifest.json can't be read.*Delete that folder"):
        open_encoder(copy, threads=1)


def copied(choice: Choice, folder: Path) -> tuple[str, Path]:
    """Copy a package; return the name of its largest file, and the copy."""
    copy = folder / "copy"
    copy.mkdir()
    for path in choice.folder.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    return max(choice.manifest["files"], key=lambda name: (copy / name).stat().st_size), copy


def test_a_torn_compiled_network_is_made_again(reference: TorchEncoder, tmp_path: Path) -> None:
    choice = choose(reference, tmp_path, "openvino")
    expected = open_encoder(choice.folder, threads=1).embed(pixels(2))
    (blob,) = (choice.folder / "compiled").glob("*.blob")
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:100])
    assert cosines(open_encoder(choice.folder, threads=1).embed(pixels(2)), expected).min() > 0.9999


def test_bug_a_compiled_network_with_one_bit_changed_was_used(reference: TorchEncoder, tmp_path: Path) -> None:
    choice = choose(reference, tmp_path, "openvino")
    expected = open_encoder(choice.folder, threads=1).embed(pixels(2))
    (blob,) = (choice.folder / "compiled").glob("*.blob")
    damaged = bytearray(blob.read_bytes())
    damaged[len(damaged) // 2] ^= 64
    blob.chmod(0o600)
    blob.write_bytes(damaged)
    assert cosines(open_encoder(choice.folder, threads=1).embed(pixels(2)), expected).min() > 0.9999
    assert blob.read_bytes() != damaged, "it was made again"


def test_a_compiled_network_whose_process_died_before_it_noted_the_hash_is_made_again(
    reference: TorchEncoder, tmp_path: Path
) -> None:
    choice = choose(reference, tmp_path, "openvino")
    open_encoder(choice.folder, threads=1)
    (blob,), (note,) = ((choice.folder / "compiled").glob(name) for name in ("*.blob", "*.sha256"))
    note.unlink()
    blob.chmod(0o600)
    blob.write_bytes(b"half")
    open_encoder(choice.folder, threads=1)
    assert note.exists()
    assert blob.stat().st_size > 4


def choose(reference: TorchEncoder, into: Path, wanted: str = "auto", calibration: np.ndarray | None = None) -> Choice:
    return choose_runtime(
        reference,
        into,
        calibration=pixels(20) if calibration is None else calibration,
        held_out=pixels(30, seed=1),
        wanted=wanted,  # type: ignore[arg-type]
    )


def test_auto_takes_int8_when_it_passes_and_tries_nothing_slower(reference: TorchEncoder, tmp_path: Path) -> None:
    told: list[str] = []
    choice = choose_runtime(
        reference, tmp_path, calibration=pixels(20), held_out=pixels(30, seed=1), progress=told.append
    )
    assert [(trial.runtime, trial.passed) for trial in choice.tried] == [("openvino-int8", True)]
    assert "quantising with 20 images" in told
    assert [path.name for path in tmp_path.iterdir()] == [choice.manifest["id"]]


def test_the_same_calibration_gives_the_same_network_and_another_gives_another(
    reference: TorchEncoder, tmp_path: Path
) -> None:
    first, again = choose(reference, tmp_path).manifest, choose(reference, tmp_path).manifest
    other = choose(reference, tmp_path, calibration=pixels(20, seed=9)).manifest
    assert (again["id"], again["files"]) == (first["id"], first["files"])
    assert other["id"] != first["id"]


def test_int8_that_fails_the_gate_leaves_the_next_runtime_and_says_why(reference: TorchEncoder, tmp_path: Path) -> None:
    black = np.zeros_like(pixels(20))
    choice = choose(reference, tmp_path, calibration=black)
    assert [(trial.runtime, trial.passed) for trial in choice.tried] == [("openvino-int8", False), ("openvino", True)]
    assert "mean cosine" in choice.manifest["gate"]["tried"][0]["reason"]
    with pytest.raises(EncoderUnavailable, match=r"openvino-int8: mean cosine .* is below 0\.98\. LOOKALIKE_ENCODER"):
        choose(reference, tmp_path, "openvino-int8", calibration=black)


def test_without_catalogue_images_int8_is_not_tried(reference: TorchEncoder, tmp_path: Path) -> None:
    choice = choose(reference, tmp_path, calibration=pixels(0))
    assert choice.manifest["runtime"] == "openvino"
    assert "no catalogue images" in choice.tried[0].reason


def test_without_openvino_torch_serves_and_the_manifest_tells_what_to_install(
    reference: TorchEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    choice = choose(reference, tmp_path)
    assert choice.manifest["runtime"] == "torch"
    assert all("pip install openvino" in trial.reason for trial in choice.tried[:2])


def test_a_package_is_replaced_by_one_of_the_same_id(reference: TorchEncoder, tmp_path: Path) -> None:
    first = choose(reference, tmp_path, "torch")
    second = choose(reference, tmp_path, "openvino")
    assert first.folder == second.folder
    assert read_manifest(second.folder)["runtime"] == "openvino"
    assert sorted(path.name for path in second.folder.iterdir()) == ["manifest.json", "model.bin", "model.xml"]


def test_an_openvino_encoder_opens_without_torch(reference: TorchEncoder, tmp_path: Path) -> None:
    folder = choose(reference, tmp_path, "openvino").folder
    code = (
        "import sys; from pathlib import Path; from worker.encoder import open_encoder\n"
        f"open_encoder(Path({str(folder)!r}), threads=1)\n"
        "sys.exit(bool({'torch', 'timm', 'torchvision', 'nncf'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_bfloat16_is_close_to_the_reference_and_another_function(reference: TorchEncoder) -> None:
    half = TorchEncoder(reference.manifest, reference.network.model, torch.device("cpu"), torch.bfloat16)
    similarity = cosines(half.embed(pixels(10)), reference.embed(pixels(10)))
    assert similarity.mean() > 0.995
    assert not np.array_equal(half.embed(pixels(10)), reference.embed(pixels(10)))


def test_the_network_normalises_as_the_transform_does(reference: TorchEncoder) -> None:
    batch = torch.from_numpy(reference.transform.normalise(pixels(3)))
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(reference.network.model(batch)).numpy()
    np.testing.assert_allclose(reference.embed(pixels(3)), expected, atol=1e-5)
