"""What a step minimises beside the losses of the label: prefixes of the embedding, and what a teacher sees."""

import math

import pytest
import torch

from training.losses import WeightedLosses
from training.objective import TEACHER_TEMPERATURE, Objective, similarity_divergence

LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])


def unit(seed: int, dim: int = 6, count: int = len(LABELS)) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=random))


def losses_of(length: int) -> WeightedLosses:
    return WeightedLosses("kind", {"multi-similarity": 1.0, "cross-entropy": 0.5}, {}, {"kind": 3}, length)


def divergence_by_loop(student: torch.Tensor, teacher: torch.Tensor) -> float:
    total = 0.0
    for photo in range(len(student)):
        others = [other for other in range(len(student)) if other != photo]

        def shares(rows: torch.Tensor, photo: int = photo, others: list[int] = others) -> list[float]:
            powers = [math.exp(float(rows[photo] @ rows[other]) / TEACHER_TEMPERATURE) for other in others]
            return [power / sum(powers) for power in powers]

        wanted, given = shares(teacher), shares(student)
        total += sum(p * math.log(p / q) for p, q in zip(wanted, given, strict=True))
    return total / len(student)


@pytest.mark.parametrize("seed", range(4))
def test_the_divergence_from_a_teacher_is_that_of_a_loop(seed: int) -> None:
    student, teacher = unit(seed), unit(seed + 100, dim=9)
    assert float(similarity_divergence(student, teacher)) == pytest.approx(
        divergence_by_loop(student, teacher), rel=1e-4
    )


def test_a_student_that_sees_the_same_similarities_has_nothing_to_learn() -> None:
    teacher = unit(1)
    turned, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(2)))
    assert float(similarity_divergence(teacher @ turned, teacher)) == pytest.approx(0, abs=1e-5)
    assert float(similarity_divergence(unit(3), teacher)) > 0.05


def test_a_student_comes_nearer_to_its_teacher() -> None:
    teacher, student = unit(1), unit(2, dim=9).requires_grad_()
    before = float(similarity_divergence(student.detach(), teacher))
    optimiser = torch.optim.Adam([student], lr=0.05)
    for _ in range(50):
        optimiser.zero_grad()
        similarity_divergence(torch.nn.functional.normalize(student), teacher).backward()
        optimiser.step()
    assert float(similarity_divergence(torch.nn.functional.normalize(student.detach()), teacher)) < before / 4


def test_prefixes_count_as_much_as_the_whole() -> None:
    torch.manual_seed(0)
    objective = Objective(losses_of, 6, (4, 2))
    embeddings = unit(5)
    classes = {"kind": LABELS}
    total, told = objective(embeddings, classes)
    by_hand = []
    for losses, length in zip(objective._losses, (6, 4, 2), strict=True):
        cut = torch.stack([row[:length] / row[:length].norm() for row in embeddings])
        by_hand.append(float(losses(cut, classes)[0].detach()))
    assert float(total.detach()) == pytest.approx(sum(by_hand) / 3, rel=1e-5)
    assert told["loss at 4"] == pytest.approx(by_hand[1], rel=1e-5)
    assert told.keys() == {
        "loss multi-similarity of kind",
        "loss cross-entropy of kind",
        "loss at 4",
        "loss at 2",
    }


def test_without_prefixes_and_teacher_it_is_the_losses_alone() -> None:
    torch.manual_seed(0)
    objective = Objective(losses_of, 6)
    (alone,) = objective._losses
    embeddings, classes = unit(5), {"kind": LABELS}
    assert objective(embeddings, classes) == alone(embeddings, classes)


def test_the_teacher_counts_by_its_weight() -> None:
    torch.manual_seed(0)
    objective = Objective(losses_of, 6, teacher_weight=3.0)
    embeddings, classes, taught = unit(5), {"kind": LABELS}, unit(6, dim=9)
    alone, _ = objective(embeddings, classes)
    both, told = objective(embeddings, classes, taught)
    assert told["loss teacher"] == pytest.approx(divergence_by_loop(embeddings, taught), rel=1e-4)
    assert float((both - alone).detach()) == pytest.approx(3 * told["loss teacher"], rel=1e-4)
