import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.small_shop import write_shop
from training.checkpoint import load_checkpoint
from training.run_folder import RunFolder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
TURNS = """
import sys, time, pathlib, torch
from training.turns import joined

folder = pathlib.Path(sys.argv[1])
with joined() as (turns, device):
    with turns.leader_first():
        if turns.leads:
            time.sleep(1)
            (folder / "made").touch()
        assert (folder / "made").exists()
    tracked = torch.tensor([5.0 + turns.rank])
    turns.agree([tracked])
    layer = torch.nn.Linear(1, 1)
    layer.weight.grad = None if turns.rank else torch.tensor([[3.0]])
    layer.bias.grad = torch.tensor([1.0 + turns.rank])
    turns.average_gradients(layer.parameters())
    figures = turns.agree_on({"p_at_5": 0.5 + turns.rank / 4, "map_at_r": float(turns.rank)}, device)
    shared = [tracked.item(), layer.weight.grad.item(), layer.bias.grad.item()]
    (folder / f"{turns.rank}.txt").write_text(f"{shared} {figures}")
"""


def train(*options: str) -> str:
    command = [*TORCHRUN, "-m", "training.train", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def small_run(folder: Path, name: str) -> list[str]:
    options = [f"--data={write_shop(folder / 'shop', 60)}", f"--out={folder / name}", f"--cache={folder}/cache"]
    options += ["--weights=none", "--first-stage=7", "--size=32", "--train-size=32", "--threads=1"]
    options += ["--loss=triplet-hard", "--loss=cross-entropy", "--classes=2", "--photos=3", "--epochs=2"]
    return [*options, "--average=0.9", "--judge-every=2"]


def test_two_processes_train_one_encoder(tmp_path: Path) -> None:
    assert train(*small_run(tmp_path, "run")).count("Best on val") == 1
    figures = RunFolder(tmp_path / "run").figures()
    assert [line["epoch"] for line in figures] == [1, 2]
    assert all(line["loss"] > 0 for line in figures)
    assert 0 <= figures[-1]["p_at_5"] <= 1


def test_two_processes_go_on_bit_for_bit_where_they_stopped(tmp_path: Path) -> None:
    train(*small_run(tmp_path, "whole"))
    train(*small_run(tmp_path, "parts"), "--stop-after=1")
    train(f"--resume={tmp_path / 'parts'}", f"--cache={tmp_path}/cache")
    whole, parts = (load_checkpoint(tmp_path / name / "checkpoint.pt")["learner"] for name in ("whole", "parts"))
    for part in ("model", "averaged", "objective"):
        assert whole[part].keys() == parts[part].keys()
        assert all(torch.equal(whole[part][name], parts[part][name]) for name in whole[part])


def test_processes_share_gradients_and_decide_by_what_the_first_one_has(tmp_path: Path) -> None:
    script = tmp_path / "turns.py"
    script.write_text(TURNS, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*TORCHRUN, str(script), str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)]
    assert told == ["[5.0, 1.5, 1.5] {'p_at_5': 0.5, 'map_at_r': 0.0}"] * 2
