from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small_shop import FEATURES, small_backbone
from training.frozen_stages import frozen_activations, learning_part, store_activations
from training.inputs import Inputs
from training.losses import WeightedLosses
from training.network import TrainedNetwork, build_network, keep_depthwise_exact
from training.objective import Objective
from training.problem import TrainingProblem
from training.step import backward
from worker.encoder import BACKBONES
from worker.encoder.backbones import Backbone
from worker.encoder.head import Head
from worker.encoder.pooling import GeneralisedMean
from worker.encoder.torch_encoder import Network


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Backbone]:
    with small_backbone(tmp_path) as backbone:
        yield backbone


def pixels(count: int, size: int = 32) -> torch.Tensor:
    random = np.random.default_rng(count)
    return torch.from_numpy(random.integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def network_of(backbone: Backbone, first: int, *, head: Head | None = None, tracks: bool = True) -> TrainedNetwork:
    return build_network("small", head or Head(), backbone.transform, first=first, tracks_statistics=tracks)


def test_training_sees_what_serving_sees(small: Backbone) -> None:
    network = network_of(small, 0).eval()
    served = Network(small.build_with(Head()), small.transform)
    served.model.load_state_dict(network.model.state_dict())
    with torch.no_grad():
        assert torch.allclose(network(pixels(5)), served(pixels(5)), atol=1e-6)


def test_frozen_stages_change_in_nothing_and_the_others_learn(small: Backbone) -> None:
    network = network_of(small, 1)
    before = {name: tensor.clone() for name, tensor in network.model.state_dict().items()}
    optimiser = torch.optim.AdamW(network.parameter_groups(0.1), weight_decay=0.1)
    network.train()
    (network(pixels(6)) * torch.randn(6, FEATURES)).sum().backward()
    optimiser.step()
    changed = {name for name, tensor in network.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("end.")} - {"end.0.bias"} | (
        {"end.0.bias"} & changed  # batch-norm takes away what a bias adds: its gradient is 0 or nearly so
    )
    assert "end.1.running_mean" in changed


def test_batch_norm_keeps_its_statistics_by_option(small: Backbone) -> None:
    network = network_of(small, 0, tracks=False).train()
    before = network.model.state_dict()["end.1.running_mean"].clone()
    network(pixels(6))
    assert torch.equal(network.model.state_dict()["end.1.running_mean"], before)
    tracking = network_of(small, 0).train()
    tracking(pixels(6))
    assert not torch.equal(tracking.model.state_dict()["end.1.running_mean"], before)


def test_stages_unfreeze(small: Backbone) -> None:
    network = network_of(small, 2)
    assert not any(p.requires_grad for p in network.model.parameters())
    network.train_from(0)
    assert all(p.requires_grad for p in network.model.parameters())
    with pytest.raises(TrainingProblem, match="no 3"):
        network.train_from(3)


def test_a_head_pools_and_projects(small: Backbone) -> None:
    network = network_of(small, 1, head=Head("gem", 6)).eval()
    assert network(pixels(3)).shape == (3, 6)
    names = {name for name, _ in network.model.named_parameters()}
    assert {"pool.power", "classifier.weight"} <= names
    fast = network.parameter_groups(0.1)[-1]
    assert fast["lr"] == pytest.approx(1.0)
    assert all(any(p is q for q in network.model.classifier.parameters()) for p in fast["params"])  # type: ignore[attr-defined, union-attr]


def test_generalised_mean_is_what_a_loop_gives() -> None:
    features = torch.rand(2, 3, 4, 5)
    pooled = GeneralisedMean(2.5)(features)
    for n in range(2):
        for c in range(3):
            values = [float(v) ** 2.5 for v in features[n, c].ravel()]
            assert pooled[n, c].item() == pytest.approx((sum(values) / 20) ** (1 / 2.5), rel=1e-4)
    assert torch.allclose(GeneralisedMean(1.0)(features), features.mean(dim=(2, 3)), atol=1e-6)


def test_of_resnet50_only_the_last_stage_learns_by_default() -> None:
    backbone = BACKBONES["resnet50"]
    network = build_network("resnet50", Head(), backbone.transform, weights="none")
    parameters = [(p.requires_grad, p.numel()) for p in network.model.parameters()]
    assert sum(count for learns, count in parameters if learns) == 14_964_736
    assert sum(count for _, count in parameters) == 23_508_032


def test_missing_weights_are_told_with_the_option_that_names_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(TrainingProblem, match=r"resnet50-0676ba61\.pth.*--weights names the file"):
        build_network("resnet50", Head(), BACKBONES["resnet50"].transform)


@pytest.mark.parametrize(("name", "first"), [("tf_efficientnet_lite0", 4), ("resnet50", 4), ("resnet50", 3)])
def test_stored_activations_give_what_the_whole_network_gives(name: str, first: int) -> None:
    backbone = BACKBONES[name]
    network = build_network(name, Head(), backbone.transform, weights="none", first=first).eval()
    batch = pixels(2, 64)
    with torch.no_grad():
        activations = frozen_activations(network, batch)
        part = torch.nn.functional.normalize(learning_part(network)(activations))
        assert torch.allclose(part, network(batch), atol=1e-6)


def test_what_is_learned_from_stored_activations_is_learned_by_the_network(small: Backbone) -> None:
    network = network_of(small, 1)
    part = learning_part(network)
    part(frozen_activations(network, pixels(4))).sum().backward()
    assert network.model.end[0].weight.grad is not None  # type: ignore[union-attr, index]
    assert network.model.begin[0].weight.grad is None  # type: ignore[union-attr, index]


def test_activations_are_computed_once_and_anew_when_the_frozen_weights_change(small: Backbone, tmp_path: Path) -> None:
    network, batch, asked = network_of(small, 1), pixels(7), []

    def pixels_of(row: int) -> np.ndarray:
        asked.append(row)
        return batch[row].numpy()

    def stored() -> np.ndarray:
        return store_activations(network, pixels_of, 7, tmp_path / "cache", {"about": 1})

    first = stored()
    assert asked == list(range(7))
    expected = frozen_activations(network.eval(), batch).permute(0, 2, 3, 1)
    assert np.allclose(first, expected.numpy(), atol=2e-3)
    assert np.array_equal(stored(), first)
    assert len(asked) == 7
    with torch.no_grad():
        network.model.begin[0].weight += 0.1  # type: ignore[union-attr, index]
    assert not np.array_equal(stored(), first)


class Direct(Inputs):
    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network

    def varied(self, rows: np.ndarray, random: np.random.Generator) -> torch.Tensor:
        raise NotImplementedError

    def plain(self, rows: np.ndarray) -> torch.Tensor:
        raise NotImplementedError

    def embed(self, batch: torch.Tensor) -> torch.Tensor:
        embeddings: torch.Tensor = self.network(batch)
        return embeddings


def test_gradient_caching_gives_the_gradients_of_the_whole_batch(small: Backbone) -> None:
    classes = {"kind": torch.tensor([0, 0, 1, 1, 2, 2, 0, 1])}
    gradients, told = [], []

    def losses_of(length: int) -> WeightedLosses:
        return WeightedLosses("kind", {"multi-similarity": 1.0}, {}, {"kind": 3}, length)

    for chunk in (0, 3):
        network = network_of(small, 0, tracks=False).train()
        objective = Objective(losses_of, FEATURES)
        _, loss, _ = backward(Direct(network), objective, pixels(8), classes, chunk)
        told.append(loss)
        gradients.append([p.grad for p in network.model.parameters()])
    assert told[0] > 0
    assert told[0] == pytest.approx(told[1])
    for whole, cached in zip(*gradients, strict=True):
        assert whole is not None
        assert cached is not None
        assert torch.allclose(whole, cached, atol=1e-5)
    assert max(float(gradient.abs().max()) for gradient in gradients[0] if gradient is not None) > 1e-3


class Dropping(torch.nn.Module):
    """Gives the photo's own numbers, some of them dropped; remembers what it was given, and how."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(6)
        self.layer = torch.nn.Linear(6, 5)
        self.kept: list[torch.Tensor] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        mask = torch.nn.functional.dropout(torch.ones(len(batch), 6))
        self.kept.append(mask)
        return torch.nn.functional.normalize(self.layer(self.norm(batch) * mask))


def test_gradient_caching_drops_the_same_both_times_and_counts_a_chunk_once() -> None:
    torch.manual_seed(0)
    network, batch = Dropping().train(), torch.randn(8, 6)
    objective = Objective(lambda length: WeightedLosses("kind", {"cross-entropy": 1.0}, {}, {"kind": 3}, length), 5)
    backward(Direct(network), objective, batch, {"kind": torch.tensor([0, 0, 1, 1, 2, 2, 0, 1])}, 4)
    first, second, first_again, second_again = network.kept
    assert torch.equal(first, first_again)
    assert torch.equal(second, second_again)
    assert not torch.equal(first, second)
    expected = torch.nn.BatchNorm1d(6).train()
    for chunk in batch.split(4):
        expected(chunk)
    assert torch.equal(network.norm.running_mean, expected.running_mean)  # type: ignore[arg-type]  # it tracks them
    assert network.norm.momentum == expected.momentum


@pytest.mark.parametrize("chunk", [0, 3])
def test_losses_are_computed_in_float32_whatever_the_network_computes_in(chunk: int) -> None:
    objective = Objective(lambda length: WeightedLosses("kind", {"cross-entropy": 1.0}, {}, {"kind": 3}, length), 5)
    torch.manual_seed(0)
    leaf = torch.nn.functional.normalize(torch.randn(8, 5)).requires_grad_()
    classes = {"kind": torch.tensor([0, 0, 1, 1, 2, 2, 0, 1])}
    expected, _ = objective(leaf, classes)
    with torch.autocast("cpu", torch.bfloat16):
        _, loss, _ = backward(Direct(torch.nn.Identity()), objective, leaf, classes, chunk)
    assert loss == float(expected.detach())


def test_depthwise_convolutions_keep_their_result_and_their_weights() -> None:
    layer = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, groups=4), torch.nn.Conv2d(4, 2, 1))
    names = list(layer.state_dict())
    images = torch.randn(2, 4, 8, 8)
    expected = layer[0](images)
    keep_depthwise_exact(layer.modules())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer[0](images), expected)
        assert layer(images).dtype == torch.bfloat16
    assert list(layer.state_dict()) == names


def test_a_network_without_pooling_refuses_another_one() -> None:
    transform = BACKBONES["vit_b_16"].transform
    with pytest.raises(TrainingProblem, match="vit_b_16: this network pools no feature map"):
        build_network("vit_b_16", Head("gem"), transform, weights="none")


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "small"])
def test_stages_name_all_that_a_backbone_has(name: str) -> None:
    backbone = BACKBONES[name]
    model = backbone.build()
    prefixes = [prefix for stage in backbone.stages for prefix in stage]
    for parameter, _ in model.named_parameters():
        assert any(parameter == prefix or parameter.startswith(f"{prefix}.") for prefix in prefixes), parameter
    size = 64 if name != "vit_b_16" else 224
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, 3, size, size)).shape == (1, backbone.dim)
