"""Runtimes that can't be made, opened or run on this machine, and what is taken instead."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nncf
import openvino
import pytest

from tests.tiny_encoder import SIZE, OnGpu, pixels, tiny_encoder
from worker.encoder import Choice, EncoderUnavailable, choose_runtime
from worker.encoder.torch_encoder import TorchEncoder


@pytest.fixture
def reference(tmp_path: Path) -> Iterator[TorchEncoder]:
    with tiny_encoder(tmp_path) as reference:
        yield reference


def choose(reference: TorchEncoder, into: Path, wanted: Any = "auto", **arguments: Any) -> Choice:
    given = {"calibration": pixels(4), "held_out": pixels(5), **arguments}
    return choose_runtime(reference, into, wanted=wanted, **given)


def test_a_network_that_fails_while_it_is_quantised_leaves_the_next_runtime(
    reference: TorchEncoder, tmp_path: Path
) -> None:
    unfit = pixels(4, SIZE // 2)  # OpenVINO raises when it runs the network on these
    choice = choose(reference, tmp_path, calibration=unfit)
    assert [(trial.runtime, trial.passed) for trial in choice.tried] == [("openvino-int8", False), ("openvino", True)]
    assert choice.tried[0].reason
    assert "\n" not in choice.tried[0].reason
    with pytest.raises(EncoderUnavailable, match=r"can't be served as wanted\. openvino-int8: .*LOOKALIKE_ENCODER"):
        choose(reference, tmp_path, "openvino-int8", calibration=unfit)


def test_an_error_of_nncf_leaves_the_next_runtime(
    reference: TorchEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quantize(*_: object, **__: object) -> None:
        raise nncf.UnsupportedModelError("no such layer")

    monkeypatch.setattr(nncf, "quantize", quantize)
    choice = choose(reference, tmp_path)
    assert choice.manifest["runtime"] == "openvino"
    assert choice.tried[0].reason == "NNCF can't quantise the network: no such layer"


def test_a_network_that_openvino_does_not_compile_is_served_by_torch(
    reference: TorchEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_model(*_: object) -> None:
        raise RuntimeError("Exception from core.cpp:1:\nno plugin for this CPU.\n")

    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    choice = choose(reference, tmp_path, calibration=pixels(0))
    assert choice.manifest["runtime"] == "torch"
    assert choice.manifest["gate"]["tried"][1]["reason"] == "Exception from core.cpp:1: no plugin for this CPU"
    with pytest.raises(EncoderUnavailable, match=r"openvino: Exception from .* this CPU\. LOOKALIKE_ENCODER_RUNTIME"):
        choose(reference, tmp_path, "openvino")


def test_a_gpu_computes_in_bfloat16_only_where_that_is_allowed(reference: TorchEncoder, tmp_path: Path) -> None:
    on_gpu = OnGpu(reference)
    assert choose(on_gpu, tmp_path, "torch").manifest["id"] == f"{reference.id}.bf16"
    exact = choose(on_gpu, tmp_path, "torch", allows_bfloat16=False).manifest
    assert exact["id"] == reference.id
    assert "dtype" not in exact
