"""Alignments against the official implementation and by hand."""

import torch
from f5_tts.model.backbones.dit import TextEmbedding

from pvlib import alignment


def test_average_equals_the_official_upsampling():
    official = TextEmbedding(30, 8, mask_padding=True, average_upsampling=True, conv_layers=1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        counts = torch.randint(1, 12, (3,), generator=generator)
        lengths = counts + torch.randint(0, 40, (3,), generator=generator)
        n, nt = int(lengths.max()), int(counts.max())
        mask = torch.arange(n)[None] < counts[:, None]
        data = torch.randn(3, n, 4, generator=generator) * mask[..., None]
        expected = official.average_upsample_text_by_mask(data, mask, lengths)
        index = alignment.average(counts, lengths, n)
        ours = (
            data[:, :nt].gather(1, index.clamp(min=0)[..., None].expand(-1, -1, 4)) * (index >= 0)[..., None]
        )
        torch.testing.assert_close(ours, expected)


def test_seven_characters_over_twenty_tokens():
    index = alignment.average(torch.tensor([7]), torch.tensor([20]), 20)[0]
    assert torch.bincount(index).tolist() == [2, 3, 3, 3, 3, 3, 3]


def test_weighted_gives_each_character_its_share():
    weights = torch.tensor([[1.0, 3.0, 0.0, 4.0, 0.0, 0.0]])
    index = alignment.weighted(weights, torch.tensor([2]), torch.tensor([10]), 12)[0]
    assert index.tolist() == [-1, -1, 0, 1, 1, 1, 3, 3, 3, 3, -1, -1]


def test_words_sound_when_they_sound():
    words = [("ab", 0.2, 0.6), ("c", 0.8, 1.0)]
    index = alignment.from_words("ab, c.", words, 10, 12)
    # 0.2 s of silence, a and b for two tokens each, the comma and the space in the gap, c, and the full stop
    assert index.tolist() == [-1, -1, 0, 0, 1, 1, 2, 3, 4, 4, 5, 5]


def test_letters_whose_middles_are_known_part_half_way():
    words, nan = [("ab", 0.2, 0.6), ("c", 0.8, 1.0)], float("nan")
    middles = [0.3, 0.4, nan, nan, 0.9, nan]
    edges = alignment.edges_of("ab, c.", words, 1.2, middles)
    expected = [(0.2, 0.35), (0.35, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 1.0), (1.0, 1.2)]
    torch.testing.assert_close(edges, torch.tensor(expected))
    astray = alignment.edges_of("ab, c.", words, 1.2, [0.1, 0.2, nan, nan, 0.9, nan])
    torch.testing.assert_close(astray[:2], torch.tensor([(0.2, 0.2), (0.2, 0.6)]))  # kept inside the word
    unknown = alignment.edges_of("ab, c.", words, 1.2, [nan] * 6)
    torch.testing.assert_close(unknown, alignment.edges_of("ab, c.", words, 1.2))


def test_within_counts_the_passing_of_a_character():
    share, length = alignment.within(torch.tensor([[0, 0, 1, 1, 1, 1, -1]]))[0].T
    torch.testing.assert_close(share, torch.tensor([0.25, 0.75, 0.125, 0.375, 0.625, 0.875, 0.0]))
    torch.testing.assert_close(length.expm1(), torch.tensor([2.0, 2, 4, 4, 4, 4, 0]))
