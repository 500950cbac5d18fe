"""A few labelled photos that are learned in moments, and a network of a few weights: stages, batch-norm, a head."""

import csv
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from training.plan import Plan
from training.run import run
from training.run_folder import RunFolder
from training.turns import Turns
from worker.encoder import BACKBONES, Transform
from worker.encoder.backbones import Backbone

ROOT = Path(__file__).parent.parent
KINDS = {"disc": 0, "bar": 1, "ring": 2, "cross": 3}
COLOURS = {"red": (200, 40, 40), "green": (40, 170, 60), "blue": (40, 60, 200)}
SIDE = 40
FEATURES = 16


def draw(kind: str, colour: str, seed: int) -> Image.Image:
    """Return a photo of a thing of a kind and colour; no two seeds look the same."""
    random = np.random.default_rng(seed)
    pixels = np.full((SIDE, SIDE, 3), 245, np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    cx, cy, size = *random.uniform(16, 24, 2), random.uniform(8, 12)
    distance = np.hypot(x - cx, y - cy)
    shape = {
        "disc": distance < size,
        "bar": (abs(x - cx) < size) & (abs(y - cy) < size / 3),
        "ring": abs(distance - size) < 3,
        "cross": (abs(x - cx) < 3) | (abs(y - cy) < 3),
    }[kind]
    pixels[shape] = COLOURS[colour]
    noise = random.integers(-8, 9, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def write_shop(folder: Path, photos: int = 120) -> Path:
    """Write products.csv and its photos; returns the table."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / "products.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "article_type", "base_colour", "image", "split"])
        for number in range(photos):
            kind, colour = list(KINDS)[number % 4], list(COLOURS)[number // 4 % 3]
            draw(kind, colour, number).save(folder / "images" / f"{number}.png")
            split = ("train", "train", "train", "val", "test")[number // 12 % 5]
            writer.writerow([number, kind, colour, f"images/{number}.png", split])
    return folder / "products.csv"


class Small(torch.nn.Module):
    """Two stages, pooling, and a last layer that does nothing until a head is put there."""

    def __init__(self) -> None:
        super().__init__()
        self.begin = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        self.end = torch.nn.Sequential(
            torch.nn.Conv2d(8, FEATURES, 3, 2, 1), torch.nn.BatchNorm2d(FEATURES), torch.nn.ReLU()
        )
        self.pool = torch.nn.AdaptiveAvgPool2d(1)
        self.classifier = torch.nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.classifier(torch.flatten(self.pool(self.end(self.begin(images))), 1))
        return features


@contextmanager
def small_backbone(folder: Path) -> Iterator[Backbone]:
    """Register the backbone "small", with weights in a folder, for the time of the block."""
    threads = torch.get_num_threads()
    path = folder / "small.pth"
    torch.manual_seed(0)
    torch.save(Small().state_dict(), path)
    transform = Transform(0.125, 36, 32, "bicubic", (0.5, 0.4, 0.45), (0.25, 0.3, 0.2))
    backbone = Backbone(FEATURES, transform, Small, lambda: path, (("begin",), ("end",)), 1, "pool", "classifier")
    BACKBONES["small"] = backbone
    try:
        yield backbone
    finally:
        del BACKBONES["small"]
        torch.set_num_threads(threads)


def trained_lite0(folder: Path) -> Path:
    """Train lite0 for an epoch at a small size, by its commands; returns the encoder's folder."""
    table = write_shop(folder / "photos", 60)
    asked = ["training.train", f"--data={table}", f"--out={folder}/run", f"--cache={folder}/cache", "--epochs=1"]
    asked += ["--first-stage=7", "--size=64", "--train-size=64", "--views=1", "--classes=4", "--photos=3", "--dim=64"]
    for command in (asked, ["training.export", f"{folder}/run"]):
        subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder / "run" / "encoder"


def train(plan: Plan, folder: RunFolder) -> None:
    """Train to the end, in silence."""
    run(
        plan,
        folder,
        folder.path.parent / "cache",
        resumes=False,
        turns=Turns(),
        device=torch.device("cpu"),
        shown=lambda _: lambda *_: None,
        said=lambda _: None,
    )


def small_plan(table: Path, **changes: object) -> Plan:
    """Return a plan that takes moments."""
    values: dict[str, object] = {
        "data": str(table),
        "backbone": "small",
        "losses": {"triplet-hard": 1.0, "cross-entropy": 1.0},
        "attributes": {"base_colour": 0.5},
        "first_stage": 0,
        "train_size": 28,
        "classes": 4,
        "photos": 3,
        "epochs": 3,
        "rate": 0.003,
        "threads": 1,
    }
    return Plan(**values | changes)  # type: ignore[arg-type]
