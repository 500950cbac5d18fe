"""From the torch reference to OpenVINO: the same network in float32, and a quantised one in int8.

Slow and large (torch, openvino, nncf); it happens when a release is built, never in a worker that serves.
"""

import contextlib
import copy
import hashlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from worker.encoder.torch_encoder import TorchEncoder


_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_NOT_QUANTISED = ("Divide", "ReduceL2", "Maximum")
"""The normalisations at either end of the network: in int8 the rows' norm would not be 1."""


class ExportFailed(RuntimeError):
    """A network can't be brought to OpenVINO; the message says why, and what to install if that helps."""


def export(reference: "TorchEncoder") -> Any:
    """Return the reference's network as an OpenVINO model: uint8 (n, size, size, 3) -> float32 (n, dim), unit rows.

    Raises:
        ExportFailed: if OpenVINO is not installed or has no such operation.
    """
    import torch

    try:
        import openvino as ov
        from openvino.frontend import GeneralFailure, OpConversionFailure, OpValidationFailure
    except ImportError as error:
        raise ExportFailed(f"OpenVINO is not installed ({error}): pip install openvino") from error
    size = reference.transform.size
    example = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    network = reference.network
    if reference.device.type != "cpu":
        network = copy.deepcopy(network).to("cpu")
    try:
        with _quiet(), torch.inference_mode():
            model = ov.convert_model(network, example_input=example, input=[-1, size, size, 3])
    except (GeneralFailure, OpConversionFailure, OpValidationFailure) as error:
        raise ExportFailed(f"OpenVINO can't convert the network: {error}") from error
    _name(model)  # NNCF notes in the model the names of what it leaves in float32
    return model


def quantise(model: Any, calibration: np.ndarray, exact_convolutions: int) -> Any:
    """Return the model with its convolutions in int8, but for the first ones.

    Args:
        model: what `export` made; not modified.
        calibration: uint8 (n, size, size, 3), n >= 1: pixels such as will be served. The same ones give the same model.
        exact_convolutions: how many of the first stay in float32: what they lose, all later layers see.

    Raises:
        ExportFailed: if NNCF is not installed.
    """
    try:
        with _quiet():
            import nncf
    except ImportError as error:
        raise ExportFailed(f"NNCF is not installed ({error}): pip install nncf") from error
    convolutions = [operation for operation in model.get_ordered_ops() if operation.get_type_name() in _CONVOLUTIONS]
    exact = nncf.IgnoredScope(
        names=[operation.get_friendly_name() for operation in convolutions[:exact_convolutions]],
        types=list(_NOT_QUANTISED),
        validate=False,  # a network may lack some of these types
    )
    images = nncf.Dataset([image[None] for image in calibration])
    with _quiet():
        return nncf.quantize(model, images, subset_size=len(calibration), ignored_scope=exact)


def write(model: Any, folder: Path) -> None:
    """Write a model to `folder`: model.xml and model.bin, the same bytes for the same model."""
    import openvino as ov

    _name(model)
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)


def digest(model: Any) -> str:
    """Return the SHA-256 of a model as `write` writes it, in hex digits."""
    whole = hashlib.sha256()
    with tempfile.TemporaryDirectory() as scratch:
        write(model, Path(scratch))
        for path in sorted(Path(scratch).iterdir()):
            whole.update(path.read_bytes())
    return whole.hexdigest()


def _name(model: Any) -> None:
    """Name model and operations by their order: OpenVINO's names are counters of the process, other ones each time."""
    model.set_friendly_name("encoder")
    for number, operation in enumerate(model.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep progress bars, deprecations and hints of torch and NNCF from whoever builds a release."""
    levels = {name: logging.getLogger(name).level for name in ("nncf", "torch")}
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
