"""Edges of known sounds: a tone and noises of known length and level, the words of the mini world."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from babble import babble

from pvlib import audio
from pvlib.audio import SAMPLE_RATE
from pvlib.config import MINI, Inference
from pvlib.study import front_end, look, one_second
from pvlib.study import manifest as manifests
from pvlib.study.manifest import ManifestError

INFERENCE = Inference()


def tone(seconds: float, peak: float = 0.1) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * 440 * np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(
        np.float32
    )


def share_above(wave: np.ndarray, hertz: float) -> float:
    power = np.abs(np.fft.rfft(wave)) ** 2
    return float(power[np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE) >= hertz].sum() / power.sum())


# Attached sounds


@pytest.mark.parametrize("side", ["start", "end"])
@pytest.mark.parametrize("sound, seconds", [("s", 0.10), ("f", 0.10), ("breath", 0.35)])
def test_an_attached_sound_has_its_length_place_and_level(sound, seconds, side):
    core = tone(0.6)
    wave, begin, end = front_end.attached(sound, -20.0, side, core)
    assert end - begin == round(seconds * SAMPLE_RATE) and len(wave) == len(core) + end - begin
    np.testing.assert_array_equal(np.delete(wave, np.s_[begin:end]), core)
    assert begin == (0 if side == "start" else len(core))
    expected = 0.1 / np.sqrt(2) / 10  # a sine's root mean square, 20 dB down
    assert np.sqrt(np.mean(wave[begin:end].astype(float) ** 2)) == pytest.approx(expected, rel=1e-3)


def test_attached_sounds_lie_in_their_bands():
    noises = {}
    for sound in front_end.SOUNDS:
        wave, begin, end = front_end.attached(sound, 0.0, "start", tone(0.6))
        noises[sound] = wave[begin:end]
    assert share_above(noises["s"], 3500) > 0.9
    assert 0.5 < share_above(noises["f"], 3500) < share_above(noises["s"], 3500)
    assert share_above(noises["breath"], 3500) < 0.25
    with pytest.raises(ValueError, match="'middle'"):
        front_end.attached("s", 0.0, "middle", tone(0.6))
    with pytest.raises(KeyError):
        front_end.attached("x", 0.0, "start", tone(0.6))


# Detectors


@pytest.mark.parametrize("weak_db, heard", [(-20.0, True), (-45.0, False)])
def test_the_energy_threshold_finds_a_tone_and_what_is_less_than_30_db_weaker(weak_db, heard):
    rng = np.random.default_rng(0)
    weak = tone(0.2, 0.1 * 10 ** (weak_db / 20))
    wave = np.concatenate([np.zeros(4800, np.float32), weak, tone(0.5), np.zeros(7200, np.float32)])
    wave += 1e-5 * rng.standard_normal(len(wave)).astype(np.float32)
    first, last = front_end.energy(wave)
    frame = front_end.ENERGY_FRAME
    assert first == pytest.approx(4800 if heard else 9600, abs=frame)
    assert last == pytest.approx(9600 + 12_000, abs=frame)


def test_webrtc_and_silero_find_speech_where_it_is():
    speech = babble(0.8)
    quiet = 1e-5 * np.random.default_rng(0).standard_normal(9600).astype(np.float32)
    wave = np.concatenate([quiet, speech, quiet])
    for bounds in (front_end.webrtc(wave, 3), front_end.silero(wave, INFERENCE)):
        first, last = bounds
        assert first == pytest.approx(9600, abs=0.1 * SAMPLE_RATE)
        assert last == pytest.approx(9600 + len(speech), abs=0.25 * SAMPLE_RATE)
    nothing = np.zeros(SAMPLE_RATE, np.float32)
    assert front_end.webrtc(nothing, 3) is None and front_end.silero(nothing, INFERENCE) is None


# What is kept


def cut(**columns: object) -> pd.DataFrame:
    row = {
        "detector": "Silero",
        "sound": "s",
        "side": "start",
        "level_db": -10.0,
        "utterance": "u",
        "speaker": "a",
    }
    return pd.DataFrame([row | {"sound_ms": 100.0} | columns])


@pytest.mark.parametrize(
    "reach, share, floor",
    [(-60.0, 0.7, 0.0), (-200.0, 0.0, 0.0), (-30.0, 1.0, 0.0), (40.0, 1.0, 70.0), (900.0, 1.0, 250.0)],
)
def test_share_kept_by_hand(reach, share, floor):
    found = front_end.kept(cut(reach_ms=reach), {"start": 30.0, "end": 80.0})
    assert found["share"][0] == pytest.approx(share) and found["floor_ms"][0] == pytest.approx(floor)


def test_a_clip_in_which_nothing_is_found_keeps_nothing():
    found = front_end.kept(cut(reach_ms=np.nan), {"start": 30.0})
    assert found["share"][0] == 0 and found["floor_ms"][0] == 0


def test_cuts_measure_from_the_true_edge(monkeypatch):
    edges = []
    for side in ("start", "end"):
        wave = np.zeros(24_000, np.float32)
        edges.append(front_end.Edge(wave, "s", side, 6000, 8400, (6000, 18_000), -10.0, "u", "a"))
    known = {"Silero": lambda wave: (7200, 18_480), "energy": lambda wave: None}
    monkeypatch.setattr(front_end, "detectors", lambda inference: known)
    found = front_end.cuts(edges, INFERENCE).set_index(["detector", "side"])
    assert found.loc[("Silero", "start"), "reach_ms"] == -50
    assert found.loc[("Silero", "end"), "reach_ms"] == 20
    assert found.loc["energy", "reach_ms"].isna().all()
    assert (found["sound_ms"] == 100).all()


def made_up() -> pd.DataFrame:
    """Silero cuts 100 ms into every start, all others nothing; at the end all reach 10 ms beyond."""
    rows = []
    for side in ("start", "end"):
        for sound in front_end.SOUNDS:
            for level in (0, -20):
                for k in range(6):
                    for name in front_end.STYLES:
                        reach = 10.0 if side == "end" or name != "Silero" else -100.0
                        columns = {
                            "detector": name,
                            "side": side,
                            "sound": sound,
                            "reach_ms": reach + 2 * (k % 2),
                        }
                        columns |= {"level_db": float(level), "speaker": f"s{k % 3}", "utterance": f"u{k}"}
                        rows.append(cut(**columns))
    return pd.concat(rows, ignore_index=True)


def test_tables_pictures_and_sentences_of_made_up_cuts(tmp_path):
    found, margin = made_up(), front_end.margins(INFERENCE)
    assert margin == {"start": 30.0, "end": 80.0}
    words = found[(found["sound"] != "breath") & (found["level_db"] == 0)]
    table = front_end.kept_table(words, margin)
    assert table.loc["Silero", "/s/ at the start"] == pytest.approx(0.31)
    assert table.loc["energy", "/f/ at the start"] == 1
    sides = [name.partition(" at the ")[2].split(" (")[0] for name in table]
    assert sides == ["start", "start", "end", "end", "start", "end"]  # shares, then noise
    beside = front_end.beside_network(words, margin).set_index(["detector", "side"])
    assert beside.loc[("energy", "start"), "difference"] == pytest.approx(0.31 - 1)
    assert beside.loc[("WebRTC 3", "end"), "difference"] == 0
    assert front_end.needed_margin(words, "start") == 100 and front_end.needed_margin(words, "end") == 0
    assert front_end.needed_margin(words.assign(reach_ms=-1000.0), "start") == np.inf
    start, start_equal, end, end_equal = front_end.about_consonants(words, INFERENCE)
    assert (
        "keeps 31%" in start
        and start.count("**less**") == 4
        and "margin of 100 ms, of those tried; it has 30 ms" in start
    )
    assert "and 0 ms of room noise" in start and start.count("**less**, with 41 ms of noise") == 4
    assert "keeps 100%" in end and end.count("not shown") == 4
    assert start_equal.count("not shown (margin 140 ms)") == 4  # enough for the whole consonant
    assert end_equal.count("not shown (margin 80 ms)") == 4 and "No margin" not in end_equal
    told = front_end.about_breaths(found, INFERENCE)
    assert (
        "at the start Silero keeps 31% of it, the others 100% to 100%; at the end Silero keeps 100%" in told
    )
    for figure in (front_end.by_level(found, margin), front_end.trade(words)):
        assert len(look.keep(figure, "front", tmp_path).data) > 3000


def test_detectors_are_compared_at_equal_noise():
    found, margin = made_up(), front_end.margins(INFERENCE)
    words = found[(found["sound"] != "breath") & (found["level_db"] == 0)].reset_index(drop=True)
    start, silero = words["side"] == "start", words["detector"] == "Silero"
    words.loc[start & (words["detector"] == "energy"), "reach_ms"] = -50.0  # half lost, hence no noise kept
    words.loc[start & (words["detector"] == "WebRTC 0"), "reach_ms"] = (
        1000.0  # everything kept, noise as well
    )
    words.loc[words.index[start & silero][0], "reach_ms"] = np.nan  # no speech found: never any noise
    table = front_end.at_equal_noise(words, margin).set_index(["detector", "side"])
    own = table.loc[("WebRTC 2", "start")]
    cut = words[start & silero]
    wide = front_end.kept(cut, {"start": own["margin_ms"]})
    assert wide["floor_ms"].mean() == pytest.approx(own["noise_ms"], abs=0.1) and own["noise_ms"] == 41
    assert own["difference"] == pytest.approx(wide["share"].mean() - 1) and own["network"] < 1
    none = table.loc[("energy", "start")]
    assert none["noise_ms"] == 0 and none["margin_ms"] == pytest.approx(
        98, abs=0.1
    )  # the widest without noise
    assert table.loc[("WebRTC 0", "start"), ["margin_ms", "difference"]].isna().all()
    told = front_end.about_consonants(words, INFERENCE)[1]
    assert "No margin makes it keep as much noise as WebRTC 0." in told and "against WebRTC 0" not in told


def test_words_are_read_by_their_spelling():
    def matched(sound: str, side: str, words: str) -> list[str]:
        return [w for w in words.split() if front_end.WORD_EDGES[sound, side].match(w)]

    assert matched("s", "start", "some slender ship rose") == ["some", "slender"]
    assert matched("f", "start", "four photos of pear") == ["four", "photos"]
    assert matched("s", "end", "comets circles glass fence rose sauce") == [
        "comets",
        "glass",
        "fence",
        "sauce",
    ]
    assert matched("f", "end", "off of leaf knife graph though") == ["off", "leaf", "knife", "graph"]


def test_word_edges_are_the_recordings_at_the_worlds_word_times():
    edges = front_end.word_edges(MINI.manifest, 3)
    manifest, times = manifests.read(MINI.manifest), manifests.word_times(MINI.manifest)
    files = manifest.table.set_index("utterance")["audio"]
    assert len(edges) == 12 and len({(e.sound, e.side) for e in edges}) == 4
    hiss = []
    for edge in edges:
        wave = audio.load(manifest.folder / files[edge.utterance])
        spoken = edge.wave[slice(*edge.speech)]
        places = [
            round((s if edge.side == "start" else e) * SAMPLE_RATE) for _, s, e in times[edge.utterance]
        ]
        starts = places if edge.side == "start" else [p - len(spoken) for p in places]
        own = [wave[s : s + len(spoken)] for s in starts if 0 <= s <= len(wave) - len(spoken)]
        assert max(np.corrcoef(spoken, piece)[0, 1] for piece in own) > 0.99
        assert (edge.begin == edge.speech[0]) if edge.side == "start" else (edge.end == edge.speech[1])
        rest = np.delete(edge.wave, np.s_[edge.begin : edge.end])
        hiss.append((share_above(edge.wave[edge.begin : edge.end], 3000), share_above(rest, 3000)))
    assert np.median([a for a, _ in hiss]) > 3 * np.median([b for _, b in hiss])  # these are fricatives


def test_edges_need_word_times(monkeypatch):
    monkeypatch.setattr(manifests, "word_times", lambda name: {})
    with pytest.raises(ManifestError, match="no word times"):
        front_end.word_edges(MINI.manifest, 1)
    with pytest.raises(ManifestError, match="no word times"):
        one_second.clips(MINI, 1)


# One second


def test_one_second_is_94_centred_frames_and_93_whole_hops():
    table = one_second.frames()
    assert list(table["frames"]) == [1 + 24_000 // 256, 24_000 // 256, round(0.15 * 24_000 / 256)]
    assert table["milliseconds"][1] == pytest.approx(93 * 256 / 24)


def test_sentences_on_clips_are_computed(tmp_path):
    rows = [
        ("a", "some fo", "some fo", 0.0, 0.5, 0.9, 100.0, "some", 6.0, -26.0, -20.0, ""),
        ("b", "go home n", "go home n", 0.2, 0.0, 0.8, -20.0, "go", -6.0, -14.0, -20.0, ""),
        ("c", "so", "", 1.0, 1.0, np.nan, np.nan, "so", np.nan, -60.0, np.nan, "no speech found in c"),
    ]
    columns = [
        "utterance",
        "true",
        "heard",
        "wrong",
        "wrong_raw",
        "seconds",
        "cut_ms",
        "first_word",
        "gain_db",
    ]
    found = pd.DataFrame(rows, columns=[*columns, "level_before", "level_after", "error"]).assign(room="hall")
    assert "3 clips of one second hold 2.0 words on average (1 to 3)" in one_second.about_a_second(found)
    told = one_second.about_a_second(found)
    assert (
        "mistakes 40.0% on average, 50.0%" in told
        and "the 1 that the front end refuses counted as all" in told
    )
    trims = one_second.about_trims(found)
    assert "0.85 s of a second" in trims and "refuses 1 clips" in trims
    assert (
        "In 1 of 2 it cuts into the first word by more than 20 ms, by 100 ms" in trims
        and "in 1 of 1." in trims
    )
    levels = one_second.about_levels(found)
    assert "8.5 dB" in levels and "0.00 dB" in levels and "from -6.0 to +6.0 dB" in levels
    assert len(look.keep(one_second.levels(found), "levels", tmp_path).data) > 3000


@pytest.mark.slow
def test_clips_say_what_the_world_says():
    found = one_second.clips(MINI, 3)
    times = manifests.word_times(MINI.manifest)
    for row in found.itertuples():
        said = [word for word, start, _ in times[row.utterance] if start < 1.0]
        assert (
            row.true.split()[:-1]
            == [re.sub("[^a-z']", "", word) for word in said][: len(row.true.split()) - 1]
        )
        assert row.level_after == pytest.approx(-20, abs=0.1) or row.gain_db == pytest.approx(20)
        assert 0.3 <= row.seconds <= 1 and row.wrong <= 1.5
