import math

import pytest
import torch

from training.batch_statistics import batch_statistics
from training.losses import LOSSES, MARGIN, SMOOTHING, TEMPERATURE, WeightedLosses

LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
COUNT = len(LABELS)


def unit(seed: int, count: int = COUNT, dim: int = 5) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=random, dtype=torch.float64))


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return math.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(one, other, strict=True)))


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return sum(float(a) * float(b) for a, b in zip(one, other, strict=True))


def others(anchor: int, *, same: bool) -> list[int]:
    return [i for i in range(COUNT) if i != anchor and (LABELS[i] == LABELS[anchor]) == same]


def batch_hard_by_loop(e: torch.Tensor) -> float:
    total = 0.0
    for a in range(COUNT):
        hardest_positive = max(distance(e[a], e[p]) for p in others(a, same=True))
        hardest_negative = min(distance(e[a], e[n]) for n in others(a, same=False))
        total += max(0.0, hardest_positive - hardest_negative + MARGIN)
    return total / COUNT


def semi_hard_by_loop(e: torch.Tensor) -> float:
    terms = []
    for a in range(COUNT):
        for p in others(a, same=True):
            for n in others(a, same=False):
                gap = distance(e[a], e[n]) - distance(e[a], e[p])
                if 0 < gap <= MARGIN:
                    terms.append(MARGIN - gap)
    return sum(terms) / len(terms)


def multi_similarity_by_loop(e: torch.Tensor) -> float:
    alpha, beta, base = 2, 50, 0.5
    total = 0.0
    for a in range(COUNT):
        near = sum(math.exp(-alpha * (cosine(e[a], e[p]) - base)) for p in others(a, same=True))
        far = sum(math.exp(beta * (cosine(e[a], e[n]) - base)) for n in others(a, same=False))
        total += math.log(1 + near) / alpha + math.log(1 + far) / beta
    return total / COUNT


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("name", "by_loop"),
    [
        ("triplet-hard", batch_hard_by_loop),
        ("triplet-semihard", semi_hard_by_loop),
        ("multi-similarity", multi_similarity_by_loop),
    ],
)
def test_pair_losses_are_what_an_explicit_loop_gives(name: str, by_loop: object, seed: int) -> None:
    embeddings = unit(seed)
    expected = by_loop(embeddings)  # type: ignore[operator]
    assert expected > 0
    assert LOSSES[name](3, 5)(embeddings, LABELS).item() == pytest.approx(expected, rel=1e-5)


def class_loss(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(1)
    loss = LOSSES[name](3, 5).double()
    vectors = torch.nn.functional.normalize(loss.get_parameter("W").detach(), dim=0).T
    return loss, vectors


@pytest.mark.parametrize("seed", range(3))
def test_cross_entropy_is_what_an_explicit_loop_gives(seed: int) -> None:
    embeddings = unit(seed)
    loss, vectors = class_loss("cross-entropy")
    total = 0.0
    for e, label in zip(embeddings, LABELS.tolist(), strict=True):
        logits = [cosine(e, vector) / TEMPERATURE for vector in vectors]
        normaliser = math.log(sum(math.exp(logit) for logit in logits))
        for other, logit in enumerate(logits):
            target = SMOOTHING / 3 + (1 - SMOOTHING if other == label else 0)
            total -= target * (logit - normaliser)
    assert total > 0
    assert loss(embeddings, LABELS).item() == pytest.approx(total / COUNT, rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_arcface_is_what_an_explicit_loop_gives(seed: int) -> None:
    embeddings = unit(seed)
    loss, vectors = class_loss("arcface")
    margin, scale = math.radians(11.5), 1 / TEMPERATURE
    total = 0.0
    for e, label in zip(embeddings, LABELS.tolist(), strict=True):
        cosines = [cosine(e, vector) for vector in vectors]
        angle = math.acos(cosines[label])
        assert angle <= math.pi - margin, "beyond that the formula changes; choose other seeds"
        logits = [scale * (math.cos(angle + margin) if c == label else value) for c, value in enumerate(cosines)]
        total += math.log(sum(math.exp(logit) for logit in logits)) - logits[label]
    assert total > 0
    assert loss(embeddings, LABELS).item() == pytest.approx(total / COUNT, rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_pulls_a_class_together(name: str) -> None:
    torch.manual_seed(0)
    raw = torch.randn(COUNT, 5, requires_grad=True)
    loss = LOSSES[name](3, 5)
    optimiser = torch.optim.SGD([raw, *loss.parameters()], lr=0.05)
    values = []
    for _ in range(60):
        optimiser.zero_grad()
        value = loss(torch.nn.functional.normalize(raw), LABELS)
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert values[0] > 0
    assert values[-1] < values[0]


def test_a_triplet_loss_without_active_triplets_is_zero_and_has_gradients() -> None:
    apart = torch.eye(3)[LABELS].requires_grad_()
    for name in ("triplet-hard", "triplet-semihard"):
        value = LOSSES[name](3, 3)(torch.nn.functional.normalize(apart), LABELS)
        value.backward()
        assert value.item() == 0


def test_losses_are_added_with_their_weights_and_photos_without_a_value_are_passed_over() -> None:
    torch.manual_seed(0)
    losses = WeightedLosses("kind", {"triplet-hard": 2.0}, {"colour": 0.5}, {"kind": 3, "colour": 2}, 5)
    embeddings = unit(0).float()
    colours = torch.tensor([0, 1, -1, 0, 1, -1, 0, 1])
    total, parts = losses(embeddings, {"kind": LABELS, "colour": colours})
    assert parts.keys() == {"loss triplet-hard of kind", "loss cross-entropy of colour"}
    kind, colour = parts.values()
    assert kind > 0
    assert colour > 0
    assert total.item() == pytest.approx(2 * kind + 0.5 * colour)
    known = colours >= 0
    again, _ = losses(torch.where(known[:, None], embeddings, -embeddings), {"kind": LABELS, "colour": colours})
    of_colour = losses._losses[1]
    assert of_colour(embeddings[known], colours[known]).item() == pytest.approx(colour)
    assert again.item() != pytest.approx(total.item())


@pytest.mark.parametrize("seed", range(3))
def test_statistics_of_a_batch_are_what_explicit_loops_give(seed: int) -> None:
    embeddings = unit(seed)
    told = batch_statistics(embeddings, LABELS)
    positives = [max(distance(embeddings[a], embeddings[p]) for p in others(a, same=True)) for a in range(COUNT)]
    negatives = [min(distance(embeddings[a], embeddings[n]) for n in others(a, same=False)) for a in range(COUNT)]
    active = [p - n + MARGIN > 0 for p, n in zip(positives, negatives, strict=True)]
    assert told["active_triplets"] == pytest.approx(sum(active) / COUNT)
    assert told["hardest_positive"] == pytest.approx(sum(positives) / COUNT, abs=1e-5)
    assert told["hardest_negative"] == pytest.approx(sum(negatives) / COUNT, abs=1e-5)
    mean = [float(column.sum()) / COUNT for column in embeddings.T]
    assert told["spread"] == pytest.approx(1 - math.sqrt(sum(value**2 for value in mean)))


def test_a_collapsed_batch_has_no_spread_and_only_active_triplets() -> None:
    told = batch_statistics(torch.tensor([[1.0, 0.0]]).repeat(COUNT, 1), LABELS)
    assert told["spread"] == pytest.approx(0, abs=1e-6)
    assert told["active_triplets"] == 1


def test_a_batch_without_any_value_of_an_attribute_has_no_loss_of_it() -> None:
    losses = WeightedLosses("kind", {"triplet-hard": 1.0}, {"colour": 1.0}, {"kind": 3, "colour": 2}, 5)
    total, parts = losses(unit(0).float(), {"kind": LABELS, "colour": torch.full((COUNT,), -1)})
    assert parts["loss cross-entropy of colour"] == 0
    assert total.item() == pytest.approx(parts["loss triplet-hard of kind"])
