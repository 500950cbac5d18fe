"""Which runtime a release gets: the fastest that passes the accuracy gate, and why the others were not taken."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from worker.encoder.backbones import BACKBONES
from worker.encoder.encoder import BATCH_IMAGES, Encoder, EncoderUnavailable
from worker.encoder.export import ExportFailed, digest, export, quantise, write
from worker.encoder.gate import Accuracy, compare
from worker.encoder.package import WEIGHTS, open_encoder, save_encoder

if TYPE_CHECKING:
    from worker.encoder.torch_encoder import TorchEncoder

Runtime = Literal["openvino-int8", "openvino", "torch"]
"""Fastest first on a CPU."""

_MEASURED_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one runtime.

    Attributes:
        runtime: its name.
        passed: whether it may serve.
        reason: why not; empty if it passed.
        accuracy: compared with the reference; None if it could not be made.
        images_per_second: of forward passes with batches of 8; None if it could not be made.
    """

    runtime: Runtime
    passed: bool
    reason: str
    accuracy: Accuracy | None = None
    images_per_second: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the trial as JSON values, for a manifest."""
        return asdict(self) | {"accuracy": self.accuracy and self.accuracy.to_dict()}


@dataclass(frozen=True, slots=True)
class Choice:
    """The runtime that was taken.

    Attributes:
        folder: the encoder as a package.
        manifest: its manifest; the trials stand under "gate".
        tried: all trials in their order; the last one passed.
    """

    folder: Path
    manifest: dict[str, Any]
    tried: list[Trial]


def choose_runtime(
    reference: "TorchEncoder",
    into: Path,
    *,
    calibration: np.ndarray,
    held_out: np.ndarray,
    labels: Sequence[str] | None = None,
    wanted: Runtime | Literal["auto"] = "auto",
    allows_bfloat16: bool = True,
    threads: int = 1,
    progress: Callable[[str], None] = lambda _: None,
) -> Choice:
    """Package the fastest runtime that passes the accuracy gate.

    Args:
        reference: what `load_encoder` gave.
        into: folder that is there; the package becomes a folder in it, named after the encoder's id.
        calibration: uint8 (n, size, size, 3), pixels of catalogue images to quantise with; without any, int8 is
            not tried.
        held_out: uint8 (m, size, size, 3), m >= 1, pixels of other images, for the gate.
        labels: one for each held-out image; None leaves Precision@5 out of the gate.
        wanted: auto tries int8, then float32 on OpenVINO, then torch; torch first where there is a GPU.
        allows_bfloat16: whether torch computes in bfloat16 on a GPU: another function, so under another id. Without
            it torch is the last on a GPU too.
        threads: CPU threads of one forward pass.
        progress: told in words what is being done.

    Raises:
        EncoderUnavailable: if the wanted runtime can't be made or does not pass; the message tells the remedy.
        ValueError: if there are no held-out images.
    """
    progress("embedding the held-out images with the reference")
    expected = _embeddings(reference, held_out)
    maker = _Maker(reference, calibration, allows_bfloat16, progress)
    tried: list[Trial] = []
    for runtime in maker.fastest_first() if wanted == "auto" else (wanted,):
        try:
            manifest, write = maker.make(runtime)
            progress(f"comparing {runtime} with the reference")
            with tempfile.TemporaryDirectory(dir=into, prefix=".trial-") as scratch:
                folder = Path(scratch) / "encoder"
                save_encoder(folder, manifest, write)
                encoder = open_encoder(folder, threads)
                accuracy = compare(_embeddings(encoder, held_out), expected, labels)
                rate = _images_per_second(encoder, held_out[:BATCH_IMAGES])
        except RuntimeError as error:  # ours, and what OpenVINO and PyTorch raise when they compile and run a network
            tried.append(Trial(runtime, False, _in_one_line(error)))
            continue
        failures = accuracy.failures(is_int8=runtime == "openvino-int8", same_id=manifest["id"] == reference.id)
        tried.append(Trial(runtime, not failures, "; ".join(failures), accuracy, rate))
        if not failures:
            gate = {"tried": [trial.to_dict() for trial in tried]}
            folder = into / manifest["id"]
            return Choice(folder, save_encoder(folder, manifest | {"gate": gate}, write), tried)
    reasons = " ".join(f"{trial.runtime}: {trial.reason}." for trial in tried)
    raise EncoderUnavailable(
        f"{reference.id} can't be served as wanted. {reasons} LOOKALIKE_ENCODER_RUNTIME=auto takes the fastest runtime "
        "that passes."
    )


class _Maker:
    """Makes the files of each runtime, and the exported model once for both that start from it."""

    def __init__(
        self,
        reference: "TorchEncoder",
        calibration: np.ndarray,
        allows_bfloat16: bool,
        progress: Callable[[str], None],
    ) -> None:
        self._reference = reference
        self._calibration = calibration
        self._in_bfloat16 = allows_bfloat16 and reference.device.type == "cuda"
        self._progress = progress

    def fastest_first(self) -> Sequence[Runtime]:
        """Return all runtimes, as fast as they can be expected to be here."""
        on_cpu: Sequence[Runtime] = get_args(Runtime)
        if not self._in_bfloat16:
            return on_cpu
        return ["torch", *(runtime for runtime in on_cpu if runtime != "torch")]

    def make(self, runtime: Runtime) -> tuple[dict[str, Any], Callable[[Path], None]]:
        """Return a manifest, and what writes the runtime's files to a folder.

        Raises:
            ExportFailed: if it can't be made, in words for people.
            RuntimeError: if OpenVINO can't run what was made of it.
        """
        manifest = self._reference.manifest | {"runtime": runtime}
        if runtime == "torch":
            if self._in_bfloat16:  # GPUs' units for bfloat16 are several times as fast
                manifest |= {"id": f"{self._reference.id}.bf16", "dtype": "bfloat16"}
            return manifest, partial(_write_weights, self._reference)
        if runtime == "openvino":
            return manifest, partial(write, self._exported)
        if len(self._calibration) == 0:
            raise ExportFailed("there are no catalogue images yet to quantise with")
        exported = self._exported
        self._progress(f"quantising with {len(self._calibration)} images")
        exact_convolutions = BACKBONES[manifest["backbone"]].exact_convolutions
        try:
            quantised = quantise(exported, self._calibration, exact_convolutions)
        except (OSError, RuntimeError):
            raise
        except Exception as error:  # NNCF's own errors have no class in common
            raise ExportFailed(f"NNCF can't quantise the network: {_in_one_line(error)}") from error
        manifest["id"] = f"{self._reference.id}.int8-{digest(quantised)[:6]}"
        return manifest, partial(write, quantised)

    @cached_property
    def _exported(self) -> Any:
        self._progress("exporting the network to OpenVINO")
        return export(self._reference)


def _write_weights(reference: "TorchEncoder", folder: Path) -> None:
    from safetensors.torch import save_file

    state = reference.network.model.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / WEIGHTS)


def _in_one_line(error: Exception) -> str:
    """Return what an error says; OpenVINO says it in several lines."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _embeddings(encoder: Encoder, pixels: np.ndarray) -> np.ndarray:
    """Return float32 (n, dim) of all pixels, in batches."""
    parts = [encoder.embed(pixels[start : start + BATCH_IMAGES]) for start in range(0, len(pixels), BATCH_IMAGES)]
    return np.concatenate([np.empty((0, encoder.dim), dtype=np.float32), *parts])


def _images_per_second(encoder: Encoder, batch: np.ndarray) -> float:
    """Return the rate of forward passes of a warm encoder."""
    images, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < _MEASURED_SECONDS:
        encoder.embed(batch)
        images += len(batch)
    return round(images / seconds, 1)
