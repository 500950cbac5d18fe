"""resnet50's weights: torchvision's where they can be had, else stand-ins.

    python -m benchmarks.serving.weights --images LIST --out FILE

Speed doesn't depend on the weights' values; precision does, so nothing about precision is told with stand-ins.
"""

import argparse
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.serving.bundle import decode
from benchmarks.serving.processes import ROOT, environment

CALIBRATION_IMAGES = 256
BATCH = 32
SEED = 0
CONNECT_SECONDS = 5
FIND_SECONDS = 300  # a slow download of 100 MB
MAKE_SECONDS = 600


def resnet50_weights(given: Path | None, images: Sequence[Path], scratch: Path) -> tuple[Path | None, str]:
    """Find weights for resnet50, making stand-ins where there are none.

    Args:
        given: what the command line names, or None.
        images: catalogue photos that stand-ins are calibrated with.
        scratch: gets stand-ins.

    Returns:
        A weights file, None for torchvision's own; and what to say of it.
    """
    if given:
        return given, f"weights file {given.name}"
    try:
        if _run("--find", timeout=FIND_SECONDS).returncode == 0:
            return None, "torchvision's ImageNet weights"
    except subprocess.TimeoutExpired:
        pass  # a download that stalls is no download
    out, listed = scratch / "resnet50-stand-in.safetensors", scratch / "calibration.txt"
    listed.write_text("\n".join(str(image) for image in images[:CALIBRATION_IMAGES]), encoding="utf-8")
    _run("--images", str(listed), "--out", str(out), timeout=MAKE_SECONDS).check_returncode()
    return out, (
        "stand-in weights (torchvision's can't be downloaded here): random ones of a fixed seed, batch-norm statistics "
        f"calibrated over {min(len(images), CALIBRATION_IMAGES)} catalogue photos. Speed is the same as with the real "
        "ones; precision means nothing"
    )


def stand_in_weights(pixels: np.ndarray, out: Path) -> None:
    """Write random weights whose batch norms fit real photos, so that activations have natural sizes.

    Args:
        pixels: float32 (n, 3, size, size), normalised photos.
        out: .safetensors file. Equal pixels give equal bytes.
    """
    import torch
    from safetensors.torch import save_file
    from torchvision.models import resnet50

    torch.manual_seed(SEED)
    model = resnet50(weights=None).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a cumulative average over all batches
    with torch.no_grad():
        for start in range(0, len(pixels), BATCH):
            model(torch.from_numpy(np.ascontiguousarray(pixels[start : start + BATCH])))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, out)


def _run(*arguments: str, timeout: float) -> "subprocess.CompletedProcess[bytes]":
    # In a process of its own: the benchmark's never holds PyTorch, nor hangs with a network that swallows everything.
    command = [sys.executable, "-m", "benchmarks.serving.weights", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(), check=False, timeout=timeout)


def has_own_weights() -> bool:
    """Whether torchvision's weights are in its cache or can be downloaded."""
    from worker.encoder import EncoderUnavailable
    from worker.encoder.backbones import BACKBONES

    socket.setdefaulttimeout(CONNECT_SECONDS)
    try:
        BACKBONES["resnet50"].own_weights()
    except EncoderUnavailable:
        return False
    return True


def main() -> None:
    """Make stand-ins, or tell by the exit status whether torchvision's weights are to be had."""
    from worker.encoder.backbones import BACKBONES

    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.weights", description=__doc__)
    parser.add_argument("--find", action="store_true", help="end with status 0 if torchvision's weights are to be had")
    parser.add_argument("--images", type=Path, help="file that lists photos, one a line")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.find:
        raise SystemExit(0 if has_own_weights() else 1)
    if not (arguments.images and arguments.out):
        parser.error("name --images and --out, or --find")
    names = arguments.images.read_text(encoding="utf-8").splitlines()
    images = [decode(Path(name).read_bytes()) for name in names]
    stand_in_weights(BACKBONES["resnet50"].transform(images), arguments.out)


if __name__ == "__main__":
    main()
