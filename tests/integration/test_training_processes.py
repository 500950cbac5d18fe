import subprocess
import sys
from pathlib import Path

from tests.small_shop import write_shop
from training.run_folder import RunFolder

ROOT = Path(__file__).parents[2]


def test_two_processes_train_one_encoder(tmp_path: Path) -> None:
    table = write_shop(tmp_path / "shop", 60)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    command += ["training.train", f"--data={table}", f"--out={tmp_path}/run", f"--cache={tmp_path}/cache"]
    command += ["--weights=none", "--first-stage=7", "--size=32", "--train-size=32", "--threads=1"]
    command += ["--loss=triplet-hard", "--loss=cross-entropy", "--classes=2", "--photos=3", "--epochs=2"]
    command += ["--average=0.9", "--judge-every=2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Best on val") == 1
    figures = RunFolder(tmp_path / "run").figures()
    assert [line["epoch"] for line in figures] == [1, 2]
    assert all(line["loss"] > 0 for line in figures)
    assert 0 <= figures[-1]["p_at_5"] <= 1
