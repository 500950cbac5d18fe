import subprocess
import sys
from pathlib import Path

import pytest
import torch

from worker.encoder import BACKBONES

NAME = "resnet50-0676ba61.pth"


@pytest.mark.parametrize(
    "variables",
    [{"TORCH_HOME": "{folder}/t", "XDG_CACHE_HOME": "{folder}/c"}, {"XDG_CACHE_HOME": "{folder}/c"}, {}],
    ids=["TORCH_HOME", "XDG_CACHE_HOME", "home"],
)
def test_weights_are_looked_for_where_pytorch_keeps_them(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "{folder}/h", **variables}.items():
        monkeypatch.setenv(name, value.format(folder=tmp_path))
    path = Path(torch.hub.get_dir()) / "checkpoints" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert path.is_relative_to(tmp_path)
    assert BACKBONES["resnet50"].own_weights() == path


def test_the_id_of_weights_that_are_there_needs_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "hub" / "checkpoints" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    code = (
        "import sys; from worker.encoder import encoder_id\n"
        "assert encoder_id('resnet50').startswith('resnet50-')\n"
        "assert 'torch' not in sys.modules, 'PyTorch was loaded'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env={"TORCH_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
