import csv
import io
import json
import os
import pickle
import re
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import resnet50

from worker.decode import decode_image
from worker.encoder import BACKBONES, Encoder, EncoderUnavailable, Transform, encoder_id, load_encoder
from worker.encoder.weights import fill, read_weights

DATASETS = Path(os.environ.get("LOOKALIKE_DATASETS", Path(__file__).parents[3] / "shared" / "datasets"))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(resnet50(weights=None).state_dict())


@pytest.fixture(scope="module")
def weights(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def lite0() -> Encoder:
    return load_encoder("tf_efficientnet_lite0", threads=1)


@pytest.fixture(scope="module", params=["tf_efficientnet_lite0", "resnet50"])
def encoder(request: pytest.FixtureRequest, lite0: Encoder, weights: Path) -> Encoder:
    return lite0 if request.param == "tf_efficientnet_lite0" else load_encoder("resnet50", weights, threads=1)


def pictures(count: int) -> list[Image.Image]:
    """Return images of different shapes, none square, with smooth and with busy parts."""
    random = np.random.default_rng(3)
    images = []
    for i in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (4 + i % 5, 5 + i % 3, 3), dtype=np.uint8))
        images.append(coarse.resize((200 + 7 * i, 310 - 5 * i), Image.Resampling.BICUBIC))
    return images


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows, float64 (n,)."""
    products: np.ndarray = one.astype(np.float64) * other
    return products.sum(axis=1)


def test_importing_the_package_loads_no_runtime() -> None:
    heavy = {"torch", "timm", "torchvision", "openvino", "nncf"}
    code = f"import sys, worker.encoder; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("name", "dim"), [("tf_efficientnet_lite0", 1280), ("resnet50", 2048)])
def test_backbones_have_the_known_dimensions(name: str, dim: int) -> None:
    assert BACKBONES[name].dim == dim


def test_embeddings_are_float32_rows_of_norm_one(encoder: Encoder) -> None:
    embeddings = encoder.encode(pictures(3))
    assert embeddings.shape == (3, encoder.dim)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_no_images_give_no_rows(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_a_batch_gives_what_single_images_give(lite0: Encoder) -> None:
    images = pictures(19)  # more than one forward pass takes
    singles = np.concatenate([lite0.encode([image]) for image in images])
    together = lite0.encode(images)
    assert cosines(singles, together).min() > 0.9999
    assert (together @ together.T - np.eye(19)).max() < 0.9999


def test_images_are_not_modified(lite0: Encoder) -> None:
    images = pictures(2)
    lite0.encode(images)
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(images, pictures(2), strict=True))


def test_an_image_that_is_not_rgb_is_refused(lite0: Encoder) -> None:
    with pytest.raises(ValueError, match="must be RGB"):
        lite0.encode([Image.new("RGBA", (30, 30))])


def test_threads_get_what_one_caller_gets(lite0: Encoder) -> None:
    images = pictures(6)
    expected = lite0.encode(images)
    worst: list[float] = []

    def encode_one_by_one() -> None:
        worst.append(float(cosines(np.concatenate([lite0.encode([i]) for i in images]), expected).min()))

    threads = [threading.Thread(target=encode_one_by_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(worst) == 4
    assert min(worst) > 0.9999


def test_a_photo_turned_by_its_exif_embeds_like_the_upright_one(lite0: Encoder) -> None:
    upright = pictures(1)[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
    turned = decode_image(file.getvalue(), max_bytes=10**7, max_pixels=10**7)
    embeddings = lite0.encode([upright, turned, upright.transpose(Image.Transpose.ROTATE_90)])
    assert embeddings[0] @ embeddings[1] > 0.9999
    assert embeddings[0] @ embeddings[2] < 0.98


def test_the_id_names_backbone_weights_and_transform(weights: Path, tmp_path: Path) -> None:
    known = encoder_id("resnet50", weights)
    assert re.fullmatch(r"resnet50-[0-9a-f]{10}", known)
    assert load_encoder("resnet50", weights).id == known

    copy = tmp_path / "elsewhere.pth"
    copy.write_bytes(weights.read_bytes())
    assert encoder_id("resnet50", copy) == known
    copy.write_bytes(weights.read_bytes() + b"\0")
    assert encoder_id("resnet50", copy) != known

    shipped = BACKBONES["resnet50"].transform
    assert encoder_id("resnet50", weights, shipped) == known
    values = shipped.to_dict() | {"interpolation": "bilinear"}
    assert encoder_id("resnet50", weights, Transform.from_dict(values)) != known


def test_the_manifest_is_json_and_holds_the_transform(lite0: Encoder) -> None:
    manifest = json.loads(json.dumps(lite0.manifest))
    assert (manifest["id"], manifest["dim"]) == (lite0.id, 1280)
    assert Transform.from_dict(manifest["transform"]) == BACKBONES["tf_efficientnet_lite0"].transform


def test_a_file_with_a_parameter_missing_is_refused_by_its_name(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({name: t for name, t in state.items() if "layer4.2.bn3" not in name}, tmp_path / "w.pth")
    with pytest.raises(EncoderUnavailable, match=r"has no 'layer4\.2\.bn3\.weight', nor 3 more of 265 parameters"):
        load_encoder("resnet50", tmp_path / "w.pth")


def test_safetensors_and_a_file_without_classifier_give_the_same_embeddings(
    weights: Path, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file({name: t for name, t in state.items() if not name.startswith("fc.")}, tmp_path / "w.safetensors")
    images = pictures(2)
    expected = load_encoder("resnet50", weights, 1).encode(images)
    assert cosines(load_encoder("resnet50", tmp_path / "w.safetensors", 1).encode(images), expected).min() > 0.9999


def test_the_transform_of_the_caller_is_used(weights: Path) -> None:
    values = BACKBONES["resnet50"].transform.to_dict() | {"resize": 96, "size": 96}
    small = load_encoder("resnet50", weights, 1, Transform.from_dict(values))
    assert small.manifest["transform"]["size"] == 96
    assert small.encode(pictures(1)).shape == (1, 2048)


def test_weights_of_another_shape_are_refused_by_name(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state | {"conv1.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "w.pth")
    with pytest.raises(EncoderUnavailable, match=r"'conv1.weight' has shape \(64, 3, 3, 3\), but \(64, 3, 7, 7\)"):
        load_encoder("resnet50", tmp_path / "w.pth")


def test_weights_of_another_network_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(
        EncoderUnavailable, match=r"does not fit the encoder: it has no 'conv_stem.weight', nor 240 more"
    ):
        load_encoder("tf_efficientnet_lite0", weights)


def test_weights_of_a_deeper_network_are_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    deeper = state | {f"layer3.{block}.conv1.weight": state["layer3.5.conv1.weight"] for block in range(6, 23)}
    torch.save(deeper, tmp_path / "resnet101.pth")
    with pytest.raises(EncoderUnavailable, match=r"larger network, with 'layer3\.6\.conv1\.weight' and 16 more"):
        load_encoder("resnet50", tmp_path / "resnet101.pth")


def test_a_file_that_is_no_weights_file_is_refused(tmp_path: Path) -> None:
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(b"not weights at all, only some text")
        with pytest.raises(EncoderUnavailable, match="can't be read as weights"):
            load_encoder("resnet50", tmp_path / name)


def test_a_missing_file_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailable, match=r"gone\.pth.*LOOKALIKE_ENCODER_WEIGHTS_PATH"):
        load_encoder("resnet50", tmp_path / "gone.pth")


class Payload:
    """What a malicious weights file would hold: code that runs when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


def test_code_in_a_weights_file_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "run"
    torch.save({"conv1.weight": Payload(marker)}, tmp_path / "w.pth")
    with pytest.raises(EncoderUnavailable, match="can't be read as weights"):
        load_encoder("resnet50", tmp_path / "w.pth")
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists()


def test_without_network_the_message_tells_what_to_download_and_which_setting_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(EncoderUnavailable, match=r"resnet50-0676ba61\.pth.*LOOKALIKE_ENCODER_WEIGHTS_PATH"):
        load_encoder("resnet50")


def test_an_unknown_encoder_is_answered_with_the_known_ones() -> None:
    with pytest.raises(EncoderUnavailable, match="tf_efficientnet_lite0, tf_efficientnet_lite2"):
        load_encoder("resnet5")


LITE_BLOCKS = {"tf_efficientnet_lite0": [1, 2, 2, 3, 3, 4, 1], "tf_efficientnet_lite2": [1, 3, 3, 4, 4, 5, 1]}


def timm_name(name: str, blocks: list[int]) -> str:
    """Translate a parameter name of EfficientNet-PyTorch to timm's by the structure of the network, not by order."""
    kinds = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    if not name.startswith("_blocks."):
        module, _, parameter = name.partition(".")
        return f"{kinds[module]}.{parameter}"
    _, number, module, parameter = name.split(".")
    stages = [(stage, i) for stage, length in enumerate(blocks) for i in range(length)]
    stage, i = stages[int(number)]
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    later = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    return f"blocks.{stage}.{i}.{(later if stage else first)[module]}.{parameter}"


@pytest.mark.parametrize("name", LITE_BLOCKS)
def test_weights_taken_by_order_land_where_their_names_say(name: str) -> None:
    backbone, blocks = BACKBONES[name], LITE_BLOCKS[name]
    path = backbone.own_weights()
    source = read_weights(path)
    model = backbone.build()
    fill(model, source, path, by_order=True)
    filled = model.state_dict()
    by_name = {timm_name(key, blocks): tensor for key, tensor in source.items() if not key.startswith("_fc.")}
    assert by_name.keys() == filled.keys()
    for key, tensor in filled.items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(tensor, by_name[key]), key


def test_weights_in_another_order_are_refused() -> None:
    backbone = BACKBONES["tf_efficientnet_lite0"]
    path = backbone.own_weights()
    source = read_weights(path)
    names = list(source)
    at = names.index("_bn0.weight")
    names[at : at + 2] = names[at + 1], names[at]  # bias before weight: the same shapes
    with pytest.raises(EncoderUnavailable, match="does not fit the encoder"):
        fill(backbone.build(), {name: source[name] for name in names}, path, by_order=True)


def test_real_products_of_one_type_are_more_alike_than_others(lite0: Encoder) -> None:
    table = DATASETS / "fashion" / "products.csv"
    if not table.exists():
        pytest.skip(f"no real photos: {table} is not there")
    chosen: dict[str, list[Path]] = defaultdict(list)
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] == "train" and len(chosen[row["article_type"]]) < 6:
                chosen[row["article_type"]].append(table.parent / row["image"])
    types = ["Tshirts", "Jeans", "Watches", "Handbags", "Sunglasses", "Heels"]
    photos = [path.read_bytes() for name in types for path in chosen[name]]
    embeddings = lite0.encode([decode_image(photo, max_bytes=10**7, max_pixels=10**7) for photo in photos])
    labels = np.repeat(types, 6)
    similarity = embeddings @ embeddings.T  # (36, 36)
    same = (labels[:, None] == labels) & ~np.eye(36, dtype=bool)
    assert similarity[same].mean() > similarity[labels[:, None] != labels].mean() + 0.2
    np.fill_diagonal(similarity, -1)
    assert np.mean(labels[similarity.argmax(axis=1)] == labels) > 0.9
