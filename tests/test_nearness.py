"""Vocos's sound moved towards its mel: the search, and what is said of it."""

import numpy as np
import pandas as pd
import pytest
import torch

from pvlib import audio
from pvlib.audio import AudioError
from pvlib.study import nearness


def distance(wave: torch.Tensor, mel: torch.Tensor) -> float:
    return float((audio.mel(wave) - mel).abs().mean())


def test_turns_come_nearer_to_the_mel_of_another_sound():
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(256 * 60) / audio.SAMPLE_RATE
    tone = 0.3 * torch.sin(2 * torch.pi * 220 * time) + 0.02 * torch.randn(len(time), generator=generator)
    mel = audio.mel(tone[None])
    wave = 0.05 * torch.randn(1, len(time), generator=generator)
    found = [distance(nearness.matched(wave, mel, turns), mel) for turns in (0, 1, 3, 10)]
    assert found == sorted(found, reverse=True) and found[-1] < 0.25 * found[0]
    assert torch.equal(nearness.matched(wave, mel, 0), wave)


def test_a_sound_that_has_the_mel_stays_and_one_without_a_spectrum_is_refused():
    wave = 0.1 * torch.randn(1, 256 * 40, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(nearness.matched(wave, audio.mel(wave), 3), wave, atol=1e-4)
    with pytest.raises(AudioError, match="512 samples are too few"):
        nearness.matched(wave[:, :512], audio.mel(wave)[..., :3], 1)


def made_up(clone_dnsmos: float, utterances: int) -> pd.DataFrame:
    """Rows in which the most turns are nearest, and change DNSMOS of clones by so much."""
    ways = [nearness.VOCOS, *map(nearness.name_of, nearness.TURNS), nearness.CLASSIC]
    near = dict(zip(ways, (0.2, 0.15, 0.12, 0.08, 0.1), strict=True))
    lines = []
    for number in range(utterances):
        for sound in (nearness.RECORDING, nearness.CLONE):
            for way in ways:
                most = way == nearness.name_of(max(nearness.TURNS))
                quality = 2.5 + (clone_dnsmos if most and sound == nearness.CLONE else 0.0)
                line = {"sound": sound, "way": way, "utterance": f"u{number}", "speaker": f"s{number % 4}"}
                lines.append(line | {"near": near[way], "dnsmos": quality, "secs": 0.7, "wer": 0.1})
    return pd.DataFrame(lines)


def test_the_price_is_named_where_it_is_shown_and_only_there():
    recordings, clones, verdict = nearness.told(made_up(-0.4, 12))
    assert "from 0.200 to 0.080 nat of its mel, nearer than Griffin-Lim's 0.100" in recordings
    assert "DNSMOS -0.400 [-0.400, -0.400], SECS +0.000" in clones
    assert "clones pay for it with DNSMOS**" in verdict
    assert len(nearness.told(made_up(+0.4, 12))) == 2
    few = nearness.told(made_up(-0.4, 2))
    assert len(few) == 2 and "of too few to tell" in few[1]


def test_the_table_has_recordings_first_and_ways_in_order():
    found = nearness.table(made_up(0.0, 3))
    assert found.index[0] == (nearness.RECORDING, nearness.VOCOS)
    assert list(found.loc[nearness.CLONE].index)[-1] == nearness.CLASSIC
    assert np.isclose(found.loc[(nearness.CLONE, nearness.VOCOS), "mel distance (nat)"], 0.2)
