"""Images to embeddings. Light to import: PyTorch and OpenVINO are loaded by what needs them only.

encoder.py           the interface
transform.py         image to network input, the one definition
scaling.py           its filters: as Pillow has them, and in a fifth of the time
backbones.py         the networks
own_weights.py       where their ImageNet weights are from
head.py, pooling.py, whitening.py  what follows a network's last layer
reference.py         load_encoder, and the ids of encoders: the reference
weights.py           weights files
torch_encoder.py     the runtime torch
openvino_encoder.py  the runtimes openvino and openvino-int8
export.py            from torch to OpenVINO, and to int8
gate.py              the accuracy gate
runtimes.py          which runtime a release gets, and why
package.py           an encoder as a folder
"""

from worker.encoder.backbones import BACKBONES
from worker.encoder.encoder import Encoder, EncoderUnavailable
from worker.encoder.package import open_encoder, read_manifest, save_encoder
from worker.encoder.reference import encoder_id, load_encoder
from worker.encoder.runtimes import Choice, Runtime, Trial, choose_runtime
from worker.encoder.transform import Transform

__all__ = [
    "BACKBONES",
    "Choice",
    "Encoder",
    "EncoderUnavailable",
    "Runtime",
    "Transform",
    "Trial",
    "choose_runtime",
    "encoder_id",
    "load_encoder",
    "open_encoder",
    "read_manifest",
    "save_encoder",
]
