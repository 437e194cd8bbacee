"""Entropy guidance against finite differences, closed forms and single rows, on a tiny untrained backbone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from test_backbone import item, tiny

from pvlib import ceag
from pvlib.ceag import Guidance, Guide
from pvlib.config import CEAG_VARIANTS, ConfigError, get_profile

CONDITIONINGS = ("durations", "padded")
T = torch.tensor(0.25)


def lively(conditioning: str):
    """A tiny model whose attention depends on what it hears."""
    model = tiny(conditioning, 2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def rows(conditioning: str, strength: float = 1.0):
    pinned, mel = conditioning == "durations", item().mel[:40]
    return [
        item(mel=mel, frames=120, pinned=pinned, ceag_lambda=strength),
        item(mel=mel, frames=91, seed=9, text="no", cfg_strength=1.5, ceag_lambda=2 * strength),
        item(mel=mel[:20], frames=67, ceag_lambda=strength / 2),
    ]


def guide_of(model, given, **options) -> tuple[Guide, torch.Tensor]:
    """A guide over these items, and noise to look at, as the sampler would hand it over."""
    lengths = torch.tensor([model.cfm.tokens(row.frames) for row in given])
    n = int(lengths.max())
    cond = torch.zeros(len(given), n, model.cfm.num_channels)
    for k, row in enumerate(given):
        known = model.cfm.tokens(len(row.mel))
        cond[k, :known] = model.cfm.stacked(row.mel[None])[0]
    mask = torch.arange(n)[None] < lengths[:, None]
    text = model.encode([row.reference_text + row.text for row in given])
    x = torch.zeros_like(cond)
    for k, row in enumerate(given):
        generator = torch.Generator().manual_seed(row.seed)
        x[k, : lengths[k]] = torch.randn(int(lengths[k]), x.shape[-1], generator=generator)
    alone = len(given) == 1
    return Guide(model, Guidance(**options), given, cond, text, None if alone else mask), x


def entropy_at(guide: Guide, x: torch.Tensor) -> torch.Tensor:
    """Sum over tokens, by the model alone: (b,)."""
    guide.model.transformer.clear_cache()
    with torch.no_grad(), guide.model.aligned(guide.model.alignment_of(guide.items)):
        return guide.entropy(x, T) * guide.real.sum(-1)


def gradient_at(guide: Guide, x: torch.Tensor) -> torch.Tensor:
    guide.model.transformer.clear_cache()
    with torch.no_grad(), guide.model.aligned(guide.model.alignment_of(guide.items)):
        return guide.gradient(x, T)[1]


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("kind", ["ceag", "ieag"])
def test_the_gradient_is_that_of_finite_differences(kind, conditioning):
    guide, x = guide_of(lively(conditioning), rows(conditioning), kind=kind)
    gradient = gradient_at(guide, x)
    length = ceag._norm(gradient).flatten()
    assert (length > 0.01).all()
    for direction in (gradient, torch.randn_like(x).mul(guide.real[..., None])):
        step = 0.5 * direction / ceag._norm(direction)
        measured = (entropy_at(guide, x + step) - entropy_at(guide, x - step)) / 2
        expected = (gradient * step).sum((1, 2))
        assert ((measured - expected).abs() < 0.01 * length + 2e-4).all()


def test_the_published_slice_has_next_to_no_gradient():
    """Softmax of probabilities is even whatever the attention, so there is nothing to follow."""
    given = rows("durations")
    honest, x = guide_of(lively("durations"), given, kind="ceag")
    sliced, _ = guide_of(honest.model, given, kind="published")
    assert (ceag._norm(gradient_at(sliced, x)) < 0.02 * ceag._norm(gradient_at(honest, x))).all()
    even = torch.tensor([math.log(len(row.reference_text + row.text)) for row in given])
    torch.testing.assert_close(entropy_at(sliced, x) / sliced.real.sum(-1), even, atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", ["ceag", "ieag"])
def test_a_small_step_lowers_the_entropy_and_further_than_a_random_one(kind):
    guide, x = guide_of(lively("durations"), rows("durations"), kind=kind)
    step = 0.5 * gradient_at(guide, x) / ceag._norm(gradient_at(guide, x))
    before = entropy_at(guide, x)
    lowered = before - entropy_at(guide, x - step)
    assert (lowered > 0).all() and (entropy_at(guide, x + step) > before).all()
    elsewhere = guide._elsewhere(step)
    torch.testing.assert_close(ceag._norm(elsewhere), ceag._norm(step))
    assert not elsewhere[~guide.real].any()
    assert (lowered > 3 * (before - entropy_at(guide, x - elsewhere)).abs()).all()


def test_what_is_subtracted_is_the_formula():
    guide, x = guide_of(lively("durations"), rows("durations", 0.2))
    gradient = gradient_at(guide, x)
    length = gradient.flatten(1).norm(dim=1)
    with torch.no_grad(), guide.model.aligned(guide.model.alignment_of(guide.items)):
        taken = guide(x, T)
    for k, strength in enumerate((0.2, 0.4, 0.1)):
        expected = strength * gradient[k] / max(1.0, float(length[k]))
        torch.testing.assert_close(taken[k], expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(
        ceag.clipped(0.5 * gradient / ceag._norm(gradient))[0].norm(), torch.tensor(0.5)
    )
    torch.testing.assert_close(
        ceag.clipped(9.0 * gradient / ceag._norm(gradient))[0].norm(), torch.tensor(1.0)
    )
    assert guide(x, torch.tensor(0.05)) == guide(x, torch.tensor(0.41)) == 0.0


def test_the_window_is_a_raised_cosine():
    guidance = Guidance(start=0.1, end=0.5)
    assert [guidance.window(t) for t in (0.0, 0.1, 0.6)] == [0, 0, 0]
    assert guidance.window(0.3) == pytest.approx(1) and guidance.window(0.2) == pytest.approx(0.5)
    assert guidance.window(0.5) == pytest.approx(0, abs=1e-12)


def test_without_strength_nothing_changes_to_the_bit():
    model = lively("durations")
    given = rows("durations", 0.0)
    plain = model.sample(given, steps=8)
    for kind in CEAG_VARIANTS:
        guided = model.sample(given, steps=8, guidance=Guidance(kind))
        assert all(torch.equal(a, b) for a, b in zip(plain, guided, strict=True))
    strong = model.sample([replace(row, ceag_lambda=200.0) for row in given], steps=8, guidance=Guidance())
    assert not any(torch.allclose(a, b, atol=1e-3) for a, b in zip(plain, strong, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain, model.sample(given, steps=8), strict=True))


@pytest.mark.parametrize("kind", ["ceag", "ieag", "random"])
def test_a_guided_batch_equals_its_rows(kind):
    model, given = lively("durations"), rows("durations", 50.0)
    plain = model.sample(given, steps=8)
    together = model.sample(given, steps=8, guidance=Guidance(kind))
    for k, row in enumerate(given):
        (alone,) = model.sample([row], steps=8, guidance=Guidance(kind))
        assert torch.isfinite(together[k]).all()
        torch.testing.assert_close(together[k], alone, atol=1e-3, rtol=1e-3)
        assert not torch.allclose(together[k], plain[k], atol=1e-3)


def test_without_masks_a_padded_batch_is_nan_and_a_full_row_is_not():
    model, given = lively("durations"), rows("durations")
    bare = Guidance("ieag", masked=False)
    (alone,) = model.sample(given[:1], steps=8, guidance=bare)
    (masked,) = model.sample(given[:1], steps=8, guidance=Guidance("ieag"))
    torch.testing.assert_close(alone, masked, atol=1e-4, rtol=0)
    # row 0 is the longest; row 1 has less sound and less text than it, row 2 less sound and the same text
    for kind, padded in (("ieag", [False, True, True]), ("ceag", [False, True, False])):
        broken = model.sample(given, steps=8, guidance=Guidance(kind, masked=False))
        found = [bool(torch.isnan(mel[len(row.mel) :]).all()) for mel, row in zip(broken, given, strict=True)]
        assert found == padded


def test_guidance_works_where_the_caller_forbids_gradients():
    model, given = lively("durations"), rows("durations", 50.0)[:1]
    expected = model.sample(given, steps=6, guidance=Guidance())[0]
    with torch.inference_mode():
        inside = model.sample(given, steps=6, guidance=Guidance())[0]
    assert torch.equal(expected, inside) and not expected.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_text_logits_are_the_log_of_summed_weights():
    scores = 4 * torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    columns = torch.tensor([[0, 0, 1, 1, 1, -1, 3, 3, -1, 4], [0, 1, 2, 3, 4, 4, 4, -1, -1, -1]])
    onto = (columns[:, :, None] == torch.arange(5)).float()
    shares = torch.stack([ceag.to_text(scores.softmax(-1)[k], columns[k], 5) for k in range(2)])
    shares = shares / shares.sum(-1, keepdim=True)
    found = ceag.text_logits(scores, onto)
    torch.testing.assert_close(found.softmax(-1), shares)
    keys, real = onto.any(1), torch.ones(2, 10, dtype=torch.bool)
    assert keys.tolist() == [[True, True, False, True, True], [True] * 5]
    torch.testing.assert_close(ceag.masked_entropy(found, keys, real), ceag.entropy(shares).mean(1))
    assert ceag.unmasked_entropy(found).isnan().tolist() == [True, False]
    flat = ceag.masked_entropy(torch.zeros(1, 2, 3, 8), torch.arange(8)[None] < 5, real[:1, :3])
    assert float(flat) == pytest.approx(math.log(5))


@pytest.mark.parametrize("conditioning", ("durations", "average", "padded"))
def test_columns_of_a_batch_are_those_of_its_rows(conditioning):
    model, given = tiny(conditioning, 2), rows(conditioning)
    together = ceag.columns_of(model, given)
    for k, row in enumerate(given):
        alone = ceag.text_columns(model, row)
        assert torch.equal(together[k, : len(alone)], alone)
        assert (together[k, len(alone) :] == -1).all()


def test_a_trace_tells_what_the_maps_tell():
    model, given = lively("durations"), rows("durations", 50.0)
    seen = ceag.trace(model, given, steps=6, guidance=Guidance())
    for mel, plain in zip(seen.mels, model.sample(given, steps=6, guidance=Guidance()), strict=True):
        assert torch.equal(mel, plain)
    for k, row in enumerate(given):
        maps = ceag.attention_maps(model, row, steps=6, guidance=Guidance())
        torch.testing.assert_close(seen.text[:, k], maps.text_entropy.mean(1), atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(seen.whole[:, k], maps.entropy.mean(1), atol=1e-3, rtol=1e-3)


def test_a_wrong_guidance_is_refused():
    with pytest.raises(ConfigError, match="no entropy guidance 'sharp'"):
        Guidance("sharp")
    with pytest.raises(ConfigError, match="the window is empty"):
        Guidance(start=0.4, end=0.4)


@pytest.mark.parametrize("layers", [(50,), (), (-9, 0)])
def test_blocks_that_are_not_there_are_told_before_the_models_are_read(layers):
    with pytest.raises(ConfigError, match="give blocks from -8 to 7"):
        get_profile("mini", use_ceag=True, ceag_layers=layers)
    assert get_profile("mini", ceag_layers=layers).inference.ceag_layers == layers  # where nobody reads them
