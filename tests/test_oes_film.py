"""Cores B and D: the split is a split, the basis is orthonormal, untrained adapters do nothing."""

from __future__ import annotations

import pytest
import torch

from pvlib.film import FiLM
from pvlib.oes import OES


def trained_oes() -> OES:
    """An OES whose raw basis is far from orthonormal, as training may leave it."""
    torch.manual_seed(1)
    oes = OES()
    with torch.no_grad():
        oes.env_basis += 0.5 * torch.randn_like(oes.env_basis)
    return oes


def test_basis_is_orthonormal_and_spans_the_raw_basis():
    oes = trained_oes()
    basis = oes.basis()
    assert basis.shape == (192, 32)
    torch.testing.assert_close(basis.T @ basis, torch.eye(32), atol=1e-5, rtol=0)
    torch.testing.assert_close(basis @ basis.T @ oes.env_basis, oes.env_basis.data, atol=1e-4, rtol=1e-4)


def test_parts_sum_to_the_embedding_and_move_a_tenth_at_first():
    oes, z = trained_oes(), torch.randn(5, 192)
    timbre, environment = oes.split(z)
    torch.testing.assert_close(timbre + environment, z)
    projection = z @ torch.linalg.pinv(oes.env_basis.data).T @ oes.env_basis.data.T  # independent of QR
    torch.testing.assert_close(environment, 0.1 * projection, atol=1e-4, rtol=1e-3)


def test_parts_are_orthogonal_at_full_scale_only():
    oes, z = trained_oes(), torch.randn(5, 192)
    assert (torch.cosine_similarity(*oes.split(z)) > 0.05).all()
    with torch.no_grad():
        oes.env_scale.fill_(1.0)
    assert torch.cosine_similarity(*oes.split(z)).abs().max() < 1e-4


def test_env_weight_runs_from_studio_to_the_original():
    oes, z = trained_oes(), torch.randn(3, 192)
    timbre, environment = oes.split(z)
    torch.testing.assert_close(oes(z), timbre)
    torch.testing.assert_close(oes(z, 1.0), z)
    torch.testing.assert_close(oes(z, 0.5), timbre + environment / 2)


def test_orthogonality_loss_is_zero_for_orthonormal_columns_and_can_be_trained_away():
    assert OES().orthogonality_loss() < 1e-10
    oes = trained_oes()
    optimiser = torch.optim.SGD(oes.parameters(), lr=1.0)
    before = oes.orthogonality_loss().item()
    for _ in range(50):
        optimiser.zero_grad()
        oes.orthogonality_loss().backward()
        optimiser.step()
    assert oes.orthogonality_loss().item() < before / 100


def test_gradients_reach_basis_and_scale():
    oes = trained_oes()
    oes(torch.randn(4, 192)).square().sum().backward()
    assert oes.env_basis.grad.abs().sum() > 0 and oes.env_scale.grad.abs() > 0


def test_oes_refuses_another_embedding():
    with pytest.raises(ValueError, match="192 numbers, this one 256"):
        OES()(torch.randn(2, 256))
    with pytest.raises(ValueError, match="environment_dim"):
        OES(dim=16, environment_dim=16)


def test_untrained_film_is_the_identity():
    film, h = FiLM(6, 16), torch.randn(2, 7, 16)
    assert torch.equal(film(h, torch.randn(2, 6)), h)


def trained_film() -> FiLM:
    torch.manual_seed(2)
    film = FiLM(6, 16)
    for net in (film.gamma_net, film.beta_net):
        torch.nn.init.normal_(net[-1].weight)
    return film


def test_film_scales_and_shifts_every_frame_alike():
    film, h, condition = trained_film(), torch.randn(2, 7, 16), torch.randn(2, 6)
    out = film(h, condition)
    gamma, beta = film.gamma_net(condition), film.beta_net(condition)
    for row in range(2):
        for frame in range(7):
            torch.testing.assert_close(out[row, frame], h[row, frame] * (1 + gamma[row]) + beta[row])


def test_a_closed_gate_leaves_its_row():
    film, h, condition = trained_film(), torch.randn(2, 7, 16), torch.randn(2, 6)
    out = film(h, condition, active=torch.tensor([False, True]))
    assert torch.equal(out[0], h[0])
    torch.testing.assert_close(out[1], film(h, condition)[1])


def test_a_zero_initialised_film_still_learns():
    film = FiLM(6, 16)
    film(torch.randn(2, 7, 16), torch.randn(2, 6)).sum().backward()
    assert film.gamma_net[-1].weight.grad.abs().sum() > 0 and film.beta_net[-1].weight.grad.abs().sum() > 0


def test_film_refuses_other_sizes():
    with pytest.raises(ValueError, match="hidden states of 16 and a condition of 6"):
        FiLM(6, 16)(torch.randn(2, 7, 16), torch.randn(2, 5))
