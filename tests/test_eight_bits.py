"""Weights in 8 bits: half the bytes, the same values as were judged, and nothing lost when a write fails."""

from __future__ import annotations

import resource

import pytest
import torch
from safetensors.torch import load_file
from tiny import TINY

from pvlib import hub, paths
from pvlib.config import MINI
from pvlib.hub import WeightsError
from pvlib.systems.sv2tts import synthesizer
from pvlib.training import eight_bits

NAME = "sv2tts-synthesizer"
CARD = {"command": f"pvlib train {NAME}", "data": "none", "steps": 0, "seconds": 0, "quality": {}}


@pytest.fixture
def state(tmp_path, monkeypatch):
    """Rounded weights of a tiny synthesizer, whose place on disk is a folder of the test."""
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    torch.manual_seed(0)
    return eight_bits.rounded(NAME, synthesizer.build(TINY.sv2tts_synthesizer).state_dict())


def written(state):
    return hub.save_weights(NAME, TINY, state, CARD)


def test_rounding_goes_to_the_nearest_of_the_values_that_e4m3_has():
    # sign, 4 bits of exponent (bias 7), 3 of mantissa: m/8 * 2^-6, or (1 + m/8) * 2^(e - 7); 15, 7 is NaN
    values = {m / 8 * 2.0**-6 for m in range(8)}
    values |= {(1 + m / 8) * 2.0 ** (e - 7) for e in range(1, 16) for m in range(8) if (e, m) != (15, 7)}
    grid = torch.tensor(sorted({*values, *(-v for v in values)}), dtype=torch.float64)
    given = torch.cat([torch.linspace(-448, 448, 4001), 0.02 * torch.linspace(-1, 1, 4001)])[None]
    found = eight_bits.rounded(NAME, {"a": given})["a"].double()
    nearest = (given.double().T - grid).abs().amin(1)
    assert len(grid) == 253
    assert torch.equal((found - given.double()).abs()[0], nearest)


def test_vectors_and_other_networks_stay_as_they_are():
    state = {"bias": torch.full((3,), 0.3), "count": torch.ones(2, 2, dtype=torch.int64)}
    assert all(eight_bits.rounded(NAME, state)[key] is state[key] for key in state)
    matrix = {"weight": torch.full((2, 2), 0.3)}
    assert eight_bits.rounded("backbone", matrix)["weight"] is matrix["weight"]
    assert not torch.equal(eight_bits.rounded(NAME, matrix)["weight"], matrix["weight"])


@pytest.mark.parametrize("bad", [449.0, float("nan"), float("inf")])
def test_what_does_not_fit_is_refused(bad):
    with pytest.raises(WeightsError, match=r"w holds values that e4m3 cannot hold"):
        eight_bits.rounded(NAME, {"w": torch.tensor([[0.0, bad]])})


def test_a_file_gets_smaller_and_no_value_changes(state):
    path = written(state)
    before, bytes_before = hub.read_weights(NAME, TINY), path.stat().st_size
    assert eight_bits.shrink(NAME, TINY) == path
    after = hub.read_weights(NAME, TINY)  # checks size, hash and configuration
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    matrices = sum(value.numel() for value in state.values() if value.dim() > 1)
    header = 10 * len(state)  # its names of types, and smaller offsets
    assert abs(bytes_before - path.stat().st_size - matrices) < header  # a byte less for each value
    assert hub.read_card(NAME, TINY)["stored"] == eight_bits.STORED
    assert len(list(path.parent.iterdir())) == 2


def test_a_network_that_was_not_rounded_is_not_touched(state):
    key = next(key for key, value in state.items() if value.dim() > 1)
    path = written(state | {key: state[key] + 0.3})
    content = path.read_bytes()
    with pytest.raises(WeightsError, match="would change in 8 bits"):
        eight_bits.shrink(NAME, TINY)
    assert path.read_bytes() == content


def test_a_full_disk_leaves_the_old_file(state):
    path = written(state)
    content, card = path.read_bytes(), path.with_suffix(".json").read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(WeightsError, match="has space"):
            eight_bits.shrink(NAME, TINY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == content and path.with_suffix(".json").read_bytes() == card
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize("name", eight_bits.NAMES)
def test_the_embedded_ones_are_stored_so(name):
    stored = load_file(hub.weights_path(name, MINI))
    kinds = {value.dtype for value in stored.values() if value.dim() > 1 and value.dtype.is_floating_point}
    assert kinds == {eight_bits.DTYPE}
    assert hub.read_card(name, MINI)["stored"] == eight_bits.STORED
