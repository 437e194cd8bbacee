"""Our sampler against the official one, batches against single rows, attention maps against the attention."""

from dataclasses import replace

import pytest
import torch
from f5_tts.model import CFM
from f5_tts.model.backbones.dit import DiT, TextEmbedding
from f5_tts.model.modules import AttnProcessor, DiTBlock

from pvlib import attention, backbone, ceag, config
from pvlib.attention import RowAttention, row_by_row
from pvlib.convolution import depthwise, summed
from pvlib.text import TextError

CASES = [(c, s, p) for c in ("durations", "average", "padded") for s in (1, 2) for p in (True, False)]


def tiny(conditioning: str, stack: int, skip: bool = True, **sizes: int) -> backbone.Backbone:
    small = dict(dim=64, depth=2, heads=2, dim_head=32, text_dim=32) | sizes
    settings = replace(
        config.Backbone(), **small, stack=stack, text_conditioning=conditioning, input_skip=skip
    )
    torch.manual_seed(0)
    model = backbone.build(settings).eval()
    for parameter in model.parameters():  # the official initialisation makes the velocity zero
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def item(**changes) -> backbone.Item:
    mel = torch.randn(94, 100, generator=torch.Generator().manual_seed(1))
    base = backbone.Item(mel, "hello wor. ", "the cat sat on it", 300, seed=3, pinned=False)
    return replace(base, **changes)


@pytest.mark.parametrize(("conditioning", "stack", "skip"), CASES)
def test_one_row_equals_the_official_sampler(conditioning, stack, skip):
    model, row = tiny(conditioning, stack, skip), item()
    ours = model.sample([row], steps=8)[0]
    official, _ = model.cfm.sample(
        row.mel[None], [row.reference_text + row.text], row.frames,
        steps=8, cfg_strength=row.cfg_strength, sway_sampling_coef=-1.0, seed=row.seed,
    )  # fmt: skip
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, official[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("conditioning", ["durations", "average", "padded"])
@pytest.mark.parametrize("stack", [1, 2])
def test_a_row_of_many_letters_lasts_as_long_as_in_the_official_sampler(conditioning, stack):
    """There each letter has a frame at least, whatever the duration; what is said is spread over all that is made."""
    model, row = tiny(conditioning, stack), item(text="cats and dogs " * 9)
    text = row.reference_text + row.text
    least = (len(text) + 1) * (1 if conditioning == "durations" else stack)
    made, trajectory = model.cfm.sample(row.mel[None], [text], 120, steps=2, seed=3)
    assert made.shape == (1, least, 100) and trajectory.shape[2] == least
    if stack == 1:
        official, _ = CFM.sample(model.cfm, row.mel[None], [text], 120, steps=2, seed=3)
        torch.testing.assert_close(made, official, atol=0, rtol=0)
    ours = model.sample([replace(row, frames=least)], steps=2)[0]
    asked = dict(steps=2, seed=3, cfg_strength=row.cfg_strength, sway_sampling_coef=-1.0)
    whole = model.cfm.sample(row.mel[None], [text], 120, **asked)[0][0]
    torch.testing.assert_close(ours, whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("conditioning", "stack", "skip"), CASES)
def test_a_batch_equals_its_rows(conditioning, stack, skip):
    model = tiny(conditioning, stack, skip)
    rows = [
        item(pinned=conditioning == "durations"),
        item(frames=231, seed=9, text="no", cfg_strength=1.5),
        item(frames=167, mel=item().mel[:50]),
    ]
    for together, row in zip(model.sample(rows, steps=6), rows, strict=True):
        alone = model.sample([row], steps=6)[0]
        assert together.shape == (row.frames, 100)
        torch.testing.assert_close(together, alone, atol=2e-5, rtol=0)


def test_padded_text_is_read_at_its_own_length_where_the_official_encoder_reads_its_company():
    encoder = tiny("padded", 1).transformer.text_embed
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    text = torch.tensor([[5, 6, 7, 8, 9, 10], [5, 6, 7, -1, -1, -1]])
    lengths = torch.tensor([60, 20])
    with torch.no_grad():
        alone = encoder(text[1:], 20)[0]
        ours, official = encoder(text, lengths), TextEmbedding.forward(encoder, text, lengths)
    torch.testing.assert_close(ours[1, :20], alone, atol=1e-5, rtol=0)
    assert (official[1, :20] - alone).abs().max() > 1e-2
    assert ours.shape == official.shape and not ours[1, 20:].any()


def test_a_row_beyond_the_positions_of_the_text_encoder_is_refused():
    model = tiny("padded", 1, skip=False)
    text = model.encode(["the cat sat"])
    assert model.transformer.text_embed(text, seq_len=8192).shape[1] == 8192
    with pytest.raises(RuntimeError):
        model.transformer.text_embed(text, seq_len=8193)
    refused = (
        r"'the cat sat on it': 87\.4 s together with the reference.* at most 87\.4 s; split the text, or take"
    )
    with pytest.raises(TextError, match=refused):
        model.sample([item(frames=8193)], steps=2)
    with pytest.raises(TextError, match=r"hello wor\. the cat sat on it': 96\.0 s together"):
        model.cfm.sample(item().mel[None], ["hello wor. the cat sat on it"], 9000, steps=2)
    model.cfm.check_length(20, 8192, "it fits")
    tiny("padded", 2).cfm.check_length(20, 8192, "twice as long fits in tokens of two frames")


def test_an_aligned_row_lasts_no_longer_than_the_official_one_and_its_letters_are_counted():
    model = tiny("durations", 2)
    model.cfm.check_length(20, 4096, "it fits")
    with pytest.raises(
        TextError, match=r"'it lasts': 87\.4 s together with the reference.* at most 87\.4 s;"
    ):
        model.cfm.check_length(20, 4097, "'it lasts'")
    with pytest.raises(TextError, match=r"aaa': 8,201 letters together with the reference.* at most 8,192;"):
        model.sample([item(text="a" * 8190)], steps=2)


@pytest.mark.parametrize("conditioning", ["durations", "average", "padded"])
def test_a_text_encoder_without_convolutions_works_and_counts_nothing(conditioning):
    model, row = tiny(conditioning, 2, conv_layers=0), item(text="a" * 20)
    text = model.encode([row.reference_text + row.text])
    encoder, length = model.transformer.text_embed, torch.tensor([150])
    made = encoder(text, seq_len=length)[0]
    if conditioning == "average":
        torch.testing.assert_close(made, encoder.text_embed(text + 1)[0][encoder.align(text, length, 150)[0]])
    assert made.shape == (150, 32)
    assert torch.isfinite(model.sample([row], steps=2)[0]).all()
    assert tiny("padded", 1).transformer.text_embed.precompute_max_pos == backbone.LONGEST_FRAMES
    model.cfm.check_length(9000, 4096, "its letters are not counted")


def test_the_skip_subtracts_the_input_from_each_half():
    model = tiny("durations", 2)
    text, mask = model.encode(["the cat sat"] * 3), torch.ones(3, 40, dtype=torch.bool)
    x, cond = torch.randn(3, 40, 200), torch.randn(3, 40, 200)
    given = dict(x=x, cond=cond, text=text, time=torch.tensor(0.5), mask=mask)
    plain = DiT.forward(model.transformer, **given)
    torch.testing.assert_close(model.transformer(**given), plain - x)
    both = model.transformer(**given, cfg_infer=True)
    torch.testing.assert_close(both[:3], plain - x)
    without = DiT.forward(model.transformer, **given, drop_audio_cond=True, drop_text=True)
    torch.testing.assert_close(both[3:], without - x)


@pytest.mark.parametrize("way", [depthwise, summed])
def test_the_depthwise_convolution_is_that_of_torch(way):
    conv = torch.nn.Conv1d(6, 6, 7, padding=3, groups=6)
    x = torch.randn(2, 11, 6, requires_grad=True)
    wanted = conv(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(way(conv, x), wanted)
    of = (x, *conv.parameters())
    for own, other in zip(
        torch.autograd.grad(way(conv, x).square().sum(), of),
        torch.autograd.grad(wanted.square().sum(), of),
        strict=True,
    ):
        torch.testing.assert_close(own, other)


def test_the_local_convolution_is_a_convolution_and_begins_as_nothing():
    options = dict(heads=2, dim_head=32, attn_mask_enabled=True, dropout=0.0)
    torch.manual_seed(0)
    block = backbone.LocalBlock(64, 7, **options).eval()
    official = DiTBlock(64, **options).eval()
    official.load_state_dict({k: v for k, v in block.state_dict().items() if not k.startswith("local.")})
    x, t = torch.randn(2, 20, 64), torch.randn(2, 64)
    mask = torch.arange(20)[None] < torch.tensor([[20], [13]])
    torch.testing.assert_close(block(x, t, mask=mask), official(x, t, mask=mask))
    torch.nn.init.normal_(block.local.weight)
    seen = (x * mask[..., None]).transpose(1, 2)
    mixed = x + block.local(seen).transpose(1, 2)
    torch.testing.assert_close(block(x, t, mask=mask), official(mixed, t, mask=mask))


def test_layers_that_know_the_speech_need_not_know_the_noise(monkeypatch):
    model = tiny("durations", 2)
    speech = torch.randn(1, 103, 200)
    monkeypatch.setattr(DiT, "forward", lambda self, x, *_, **options: speech.repeat(2, 1, 1))
    first = model.sample([item(frames=206, cfg_strength=0.0)], steps=1)[0]
    torch.testing.assert_close(first[94:], model.cfm.unstacked(speech)[0, 94:206])


def test_the_reference_is_kept_and_the_seed_repeats():
    model, row = tiny("durations", 2), item()
    first, again, other = (model.sample([item(seed=s)], steps=4)[0] for s in (3, 3, 4))
    torch.testing.assert_close(first[:94], row.mel)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_pinned_reference_keeps_its_text_to_itself():
    model, row = tiny("durations", 2), item(pinned=True)
    index = model.alignment_of([row])[0]
    known = 47
    assert index[:known].max() < len("hello wor")
    assert (index[known : known + 5] >= len("hello wor")).all()
    assert index[-1] == len(row.reference_text + row.text) - 1
    assert (index[1:] >= index[:-1]).all()


def test_nothing_to_say_is_refused():
    with pytest.raises(ValueError, match="nothing to say"):
        tiny("durations", 2).sample([item(frames=94)])


def test_official_weights_names_at_full_size():
    with torch.device("meta"):
        model = backbone.Backbone(config.PAPER.backbone, {str(i): i for i in range(2545)})
    names = list(model.transformer.state_dict())
    assert sum(p.numel() for p in model.transformer.parameters()) == 337_096_804
    assert len(names) == 364


def test_attention_weights_give_the_attention_output():
    model = tiny("durations", 2)
    attention = model.transformer.transformer_blocks[0].attn
    x = torch.randn(2, 20, 64)
    mask = torch.arange(20)[None] < torch.tensor([[20], [13]])
    rope = model.transformer.rotary_embed.forward_from_seq_len(20)
    maps = ceag.weights(attention, x, mask, rope, None)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 2, 20))
    value = attention.to_v(x).view(2, 20, 2, -1).transpose(1, 2)
    mixed = (maps @ value).transpose(1, 2).reshape(2, 20, -1)
    expected = attention.to_out[0](mixed).masked_fill(~mask[..., None], 0.0)
    torch.testing.assert_close(expected, attention(x, mask=mask, rope=rope), atol=1e-5, rtol=1e-4)


def test_attention_maps_do_not_change_the_result():
    model, row = tiny("durations", 2), item(pinned=True)
    plain = model.sample([row], steps=4)[0]
    maps = ceag.attention_maps(model, row, layers=(-2, -1), t=0.3, steps=4)
    assert torch.equal(plain, model.sample([row], steps=4)[0])
    n, characters = 150, len(row.reference_text + row.text)
    assert maps.maps.shape == (2, 2, n, n)
    assert maps.text_maps.shape == (2, 2, n, characters)
    assert (maps.text_maps.sum(-1) <= 1 + 1e-5).all()
    assert maps.entropy.shape == (4, 2)
    uniform = torch.full((n, n), 1 / n)
    torch.testing.assert_close(ceag.entropy(uniform), torch.tensor(float(n)).log())


def test_rows_attend_one_by_one_on_a_cpu_and_the_official_processors_come_back():
    model = tiny("durations", 2)
    layers = [block.attn for block in model.transformer.transformer_blocks]
    official = [layer.processor for layer in layers]
    assert all(type(processor) is AttnProcessor for processor in official)
    with ceag.recording(model, [0]), row_by_row(model.transformer):
        assert type(layers[0].processor.inner) is RowAttention  # whoever looks on, the numbers are the same
        assert all(type(layer.processor) is RowAttention for layer in layers[1:])
    assert [layer.processor for layer in layers] == official


@pytest.mark.parametrize("lengths", [[9, 4], [1, 8], [0, 5]])
def test_some_queries_at_a_time_attend_as_all_at_once(monkeypatch, lengths):
    query, key, value = torch.randn(3, 2, 2, 9, 4, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(attention, "QUERIES", 4)
    out = attention._attended(query, key, value, lengths)
    for row, n in enumerate(lengths):
        whole = torch.nn.functional.scaled_dot_product_attention(
            *(t[row, :, :n] for t in (query, key, value))
        )
        torch.testing.assert_close(out[row, :, :n], whole)
        assert not out[row, :, n:].any()


@pytest.mark.parametrize(("setting", "value"), [("pe_attn_head", 1), ("attn_mask_enabled", False)])
def test_what_rows_cannot_do_stays_official(setting, value):
    model = tiny("durations", 2)
    layer = model.transformer.transformer_blocks[0].attn
    setattr(layer.processor, setting, value)
    with row_by_row(model.transformer):
        assert type(layer.processor) is AttnProcessor
