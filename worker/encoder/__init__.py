"""Images to embeddings. Light to import: PyTorch is loaded by `load_encoder` only.

encoder.py         the interface
transform.py       image to network input, the one definition
backbones.py       the networks, their ids, load_encoder
weights.py         weights files
torch_encoder.py   the implementation on PyTorch
"""

from worker.encoder.backbones import BACKBONES, encoder_id, load_encoder
from worker.encoder.encoder import Encoder, EncoderUnavailable
from worker.encoder.transform import Transform

__all__ = ["BACKBONES", "Encoder", "EncoderUnavailable", "Transform", "encoder_id", "load_encoder"]
