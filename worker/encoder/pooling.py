"""Pooling layers that training may choose; average pooling is each network's own."""

import torch


class GeneralisedMean(torch.nn.Module):
    """GeM pooling: (mean of x^p)^(1/p) over the places of each channel, with one learned power p.

    p = 1 is average pooling, p -> infinity takes the maximum; it begins at 3. Values below 1e-6 count as that.
    Source: Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", 2018, eq. 3.
    """

    def __init__(self, power: float = 3.0) -> None:
        super().__init__()
        self.power = torch.nn.Parameter(torch.tensor([power]))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Turn (n, c, h, w) into (n, c)."""
        return features.clamp(min=1e-6).pow(self.power).mean(dim=(2, 3)).pow(1 / self.power)
