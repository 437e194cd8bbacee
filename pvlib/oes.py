"""Core B, orthogonal environment separation: a speaker embedding as timbre plus environment (seed, OES).

A learned basis B (192 x 32), orthonormal by QR, spans the environment. With P = B B^T and s = env_scale:
environment = s P z, timbre = z - environment, output = timbre + env_weight * environment.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EMBEDDING_DIM = 192
ENVIRONMENT_DIM = 32


class OES(nn.Module):
    """Orthogonal environment separation.

    env_scale starts at 0.1: an untrained basis is random, and at 1 it would take a random sixth of the voice away.
    """

    def __init__(
        self, dim: int = EMBEDDING_DIM, environment_dim: int = ENVIRONMENT_DIM, env_scale_init: float = 0.1
    ) -> None:
        super().__init__()
        if not 0 < environment_dim < dim:
            raise ValueError(f"environment_dim = {environment_dim} must lie between 0 and dim = {dim}")
        self.dim = dim
        self.env_basis = nn.Parameter(nn.init.orthogonal_(torch.empty(dim, environment_dim)))
        self.env_scale = nn.Parameter(torch.tensor(float(env_scale_init)))

    def basis(self) -> Tensor:
        """Orthonormal columns spanning the environment, (dim, environment_dim), in fp32."""
        return torch.linalg.qr(self.env_basis.float()).Q

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Split a speaker embedding into timbre and environment.

        z: (batch, 192) ECAPA-TDNN embedding, any norm.
        Returns (timbre, environment), each (batch, 192), summing to z.
        With env_scale 1 the two are orthogonal; below 1 only a fraction of the projection is moved (seed, OES).
        Raises ValueError when the last axis is not 192.
        """
        if z.shape[-1] != self.dim:
            raise ValueError(f"a speaker embedding has {self.dim} numbers, this one {z.shape[-1]}")
        basis = self.basis().to(z.dtype)
        environment = self.env_scale.to(z.dtype) * (z @ basis @ basis.T)
        return z - environment, environment

    def forward(self, z: Tensor, env_weight: float = 0.0) -> Tensor:
        """Timbre with as much of the environment as wanted: 0 the studio, 1 the original microphone (z itself).

        z: (batch, 192). Returns (batch, 192). Raises ValueError when the last axis is not 192.
        """
        timbre, environment = self.split(z)
        return timbre + env_weight * environment

    def orthogonality_loss(self) -> Tensor:
        """Mean square of B^T B - I for the raw basis: 0 when its columns are orthonormal.

        QR makes any full-rank basis orthonormal; this keeps the raw one well-conditioned while it is trained.
        """
        gram = self.env_basis.float().T @ self.env_basis.float()
        return (gram - torch.eye(gram.shape[0], device=gram.device)).square().mean()
