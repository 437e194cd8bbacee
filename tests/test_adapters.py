"""The adapters: invisible before training, gated by row, and whole after a round trip."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pvlib import adapters, backbone, config
from pvlib.adapters import Adapters, Conditions

SMALL = replace(config.Backbone(), dim=32, depth=3, heads=1, dim_head=32, text_dim=16, conv_layers=1)
SETTINGS = config.Adapters(film_width=8)


@pytest.fixture
def model() -> backbone.Backbone:
    torch.manual_seed(0)
    model = backbone.build(SMALL)
    for (
        parameter
    ) in model.transformer.parameters():  # the official gates start at zero and would hide everything
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


@pytest.fixture
def module() -> Adapters:
    torch.manual_seed(1)
    return Adapters(SETTINGS, SMALL.dim)


def conditions(rows: int) -> Conditions:
    generator = torch.Generator().manual_seed(2)
    return Conditions(*(torch.randn(rows, size, generator=generator) for size in (192, 64, 64, 4)))


def awake(module: Adapters) -> Adapters:
    """As if trained: FiLM says something."""
    for film in module.film:
        torch.nn.init.normal_(film.gamma_net[-1].weight, std=0.3)
        torch.nn.init.normal_(film.beta_net[-1].weight, std=0.3)
    return module


def items() -> list[backbone.Item]:
    mel = torch.randn(20, 100, generator=torch.Generator().manual_seed(3))
    return [
        backbone.Item(mel, "red. ", text, frames, seed=4) for text, frames in (("fox", 44), ("blue fox", 52))
    ]


def sampled(
    model: backbone.Backbone, module: Adapters | None, active: torch.Tensor | None = None
) -> list[torch.Tensor]:
    if module is None:
        return model.sample(items(), steps=2)
    blocks = adapters.last_blocks(model.transformer, 2)
    with module.modulating(blocks, module.condition(conditions(2)), active):
        return model.sample(items(), steps=2)


def test_untrained_adapters_change_nothing(model, module):
    for plain, adapted in zip(sampled(model, None), sampled(model, module), strict=True):
        assert torch.equal(plain, adapted)


def test_trained_ones_do_and_leave_no_trace(model, module):
    plain = sampled(model, None)
    adapted = sampled(model, awake(module))
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(plain, adapted, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain, sampled(model, None), strict=True))


def test_the_gate_is_kept_row_by_row(model, module):
    plain, gated = sampled(model, None), sampled(model, awake(module), torch.tensor([False, True]))
    torch.testing.assert_close(gated[0], plain[0])
    assert (gated[1] - plain[1]).abs().max() > 1e-3


def test_the_unconditional_half_is_not_modulated(model, module):
    given = torch.randn(4, 5, SMALL.dim)
    block = torch.nn.Identity()
    with awake(module).modulating([block, torch.nn.Identity()], module.condition(conditions(2))):
        made = block(given)
    assert torch.equal(made[2:], given[2:]) and not torch.allclose(made[:2], given[:2])


def test_blocks_and_layers_must_match(model, module):
    with (
        pytest.raises(ValueError, match="2 FiLM layers for 1"),
        module.modulating(adapters.last_blocks(model.transformer, 1), module.condition(conditions(2))),
    ):
        pass


def test_env_weight_moves_the_environment_only(module):
    given = conditions(3)
    studio, there = module.condition(given, 0.0), module.condition(given, 1.0)
    torch.testing.assert_close(there[:, :192], given.embedding)  # weight 1 is the original microphone
    _, environment = module.oes.split(given.embedding)
    torch.testing.assert_close(there[:, :192] - studio[:, :192], environment)
    assert torch.equal(there[:, 192:], studio[:, 192:])


def test_only_adapters_and_the_last_blocks_are_trained(model, module):
    parameters = adapters.trainable(module, model.transformer)
    block = sum(p.numel() for p in model.transformer.transformer_blocks[0].parameters())
    assert sum(p.numel() for p in parameters) == 2 * block + sum(p.numel() for p in module.parameters())
    assert [p.requires_grad for p in model.transformer.transformer_blocks[0].parameters()].count(True) == 0
    assert all(p.requires_grad for p in parameters)


def test_state_round_trip(model, module):
    found = adapters.state(awake(module), model.transformer)
    assert {key.split(".")[0] for key in found} == {"adapters", "blocks"}
    assert {key.split(".")[1] for key in found if key.startswith("blocks.")} == {"1", "2"}
    found = {key: value.clone() for key, value in found.items()}
    other, twin = backbone.build(SMALL), Adapters(SETTINGS, SMALL.dim)
    adapters.load_state(twin, other.transformer, found)
    for key, value in adapters.state(twin, other.transformer).items():
        assert torch.equal(value, found[key]), key
    with pytest.raises(RuntimeError, match="gamma_net"):
        adapters.load_state(twin, other.transformer, {k: v for k, v in found.items() if "gamma" not in k})
