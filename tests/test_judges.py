"""The judges and the vocoder: what small, untrained networks must do, and their trainers on a toy corpus."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pvlib import audio, paths, recognizer, speaker, vocoder
from pvlib.audio import AudioError
from pvlib.config import MINI, PAPER, Recognizer, SpeakerEncoder, Vocoder
from pvlib.metrics.eer import equal_error_rate

RNG = np.random.default_rng(0)


def noise(samples: int) -> np.ndarray:
    return (0.1 * RNG.normal(size=samples)).astype(np.float32)


# Equal error rate


def test_eer_of_a_hand_worked_example():
    # threshold 0.6 rejects one same pair of four (0.5) and accepts one different pair of four (0.7)
    scores = [0.9, 0.8, 0.6, 0.5, 0.7, 0.4, 0.3, 0.2]
    labels = [1, 1, 1, 1, 0, 0, 0, 0]
    assert equal_error_rate(scores, labels) == pytest.approx(0.25)


def test_eer_extremes_and_interpolation():
    assert equal_error_rate([3, 2, 1, 0], [1, 1, 0, 0]) == 0
    assert equal_error_rate([0, 1, 2, 3], [1, 1, 0, 0]) == 1
    assert equal_error_rate([1, 1, 1, 1], [1, 1, 0, 0]) == pytest.approx(0.5)


@pytest.mark.parametrize("scores, labels", [([1, 2], [1, 1]), ([1, np.nan], [1, 0]), ([1], [1, 0])])
def test_eer_refuses(scores, labels):
    with pytest.raises(ValueError):
        equal_error_rate(scores, labels)


# Recogniser


@pytest.fixture(scope="module")
def reader() -> recognizer.CTCRecognizer:
    torch.manual_seed(0)
    model = recognizer.build(Recognizer(channels=32, hidden=32, layers=2)).eval()
    with torch.no_grad():
        model.head.weight.mul_(20)  # so that an untrained network says something
    return model


def test_recogniser_reads_a_batch_as_it_reads_each_alone(reader):
    waves = [noise(n) for n in (24_000, 50_001, 7_200, 24_001, 100)]
    together = reader.transcribe(waves)
    assert any(together)
    assert together == [reader.transcribe([wave])[0] for wave in waves]


def test_padding_does_not_reach_the_output(reader):
    mel = torch.randn(1, 50, 100)
    alone, length = reader(mel, torch.tensor([50]))
    padded = torch.cat([mel, torch.full((1, 33, 100), torch.nan)], 1)
    beside, lengths = reader(torch.cat([padded, torch.randn(1, 83, 100)]), torch.tensor([50, 83]))
    assert length.item() == lengths[0].item()
    torch.testing.assert_close(beside[:1, :length], alone, atol=1e-5, rtol=1e-5)


def test_guesses_end_with_the_output_and_feed_what_follows():
    reader = recognizer.build(Recognizer(channels=32, hidden=32, layers=4)).eval()
    mel, lengths = torch.randn(2, 80, 100), torch.tensor([80, 47])
    with torch.no_grad():
        guesses = reader.guesses(mel, lengths)
        torch.testing.assert_close(guesses[-1][0], reader(mel, lengths)[0])
        assert len(guesses) == 2  # after two blocks of four, and at the end
        assert all(guess.exp().sum(-1).allclose(torch.ones(())) for guess, _ in guesses)
        reader.reread.weight.normal_()
        again = reader.guesses(mel, lengths)
    torch.testing.assert_close(again[0][0], guesses[0][0])
    assert not torch.allclose(again[-1][0], guesses[-1][0])


def test_recogniser_size_and_output_rate():
    model = recognizer.build(MINI.recognizer)
    assert sum(p.numel() for p in model.parameters()) <= 3_000_000
    log_probs, lengths = model(torch.zeros(1, 94, 100), torch.tensor([94]))
    assert lengths.item() == log_probs.shape[1] == 48  # a second of speech
    assert log_probs.shape[2] == len(MINI.recognizer.alphabet) + 1


def test_greedy_decoding_merges_repeats_and_keeps_doubles(reader):
    a, b, blank = reader.encode("a")[0], reader.encode("b")[0], recognizer.BLANK
    path = [a, a, blank, a, b, b, blank, a]
    log_probs = torch.nn.functional.one_hot(torch.tensor([path]), reader.symbols).float()
    assert reader.decode(log_probs, torch.tensor([7])) == ["aab"]


def test_normalise():
    alphabet = MINI.recognizer.alphabet
    assert recognizer.normalise("  Well-known, it\u2019s\n42 Zebras!", alphabet) == "well known it's zebras"


def test_recogniser_refuses_what_is_not_sound(reader):
    with pytest.raises(AudioError, match="waveform 1"):
        reader.transcribe([noise(3000), np.full(3000, np.nan, np.float32)])
    with pytest.raises(AudioError, match="one channel"):
        reader.transcribe([np.zeros((2, 3000), np.float32)])


# Speaker encoders


@pytest.fixture(scope="module")
def encoder() -> speaker.SpeakerEncoder:
    torch.manual_seed(0)
    return speaker.build(SpeakerEncoder(channels=(16, 16, 16, 16, 48))).eval()


def test_embeddings_are_unit_and_each_as_alone(encoder):
    waves = [noise(24_000), noise(31_000), noise(24_000), noise(4_000)]
    together = encoder.embed(waves)
    assert together.shape == (4, 192)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(together, torch.cat([encoder.embed([w]) for w in waves]), atol=1e-5, rtol=1e-4)


def test_embedding_ignores_the_level(encoder):
    wave = noise(24_000)
    torch.testing.assert_close(encoder.embed([wave]), encoder.embed([0.5 * wave]), atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize(
    "wave", [np.zeros(24_000), noise(2_000), np.full(24_000, np.inf), np.ones((2, 24_000))]
)
def test_encoder_refuses(encoder, wave):
    with pytest.raises(AudioError, match="waveform 0"):
        encoder.embed([wave])


def test_official_names_fit():
    names = set(speaker.build(MINI.speaker_encoder).state_dict())
    assert all(name.startswith("network.") for name in names)
    assert {"network.blocks.0.conv.conv.weight", "network.fc.conv.weight"} <= names
    names = set(vocoder.build(MINI.vocoder).state_dict())
    assert {"backbone.embed.weight", "backbone.convnext.0.gamma", "head.out.weight"} <= names
    assert PAPER.speaker_encoder.channels[0] == 1024


def test_ge2e_of_short_and_long_sound():
    pytest.importorskip("resemblyzer")
    judge = speaker.GE2E()
    soft = 0.1 * noise(24_000)
    short, long, quiet = judge.embed([soft, noise(40_000), 0.1 * soft])
    for embedding in (short, long, quiet):
        assert embedding.shape == (256,)
        assert float(embedding.norm()) == pytest.approx(1, abs=1e-4)
    assert float(short @ quiet) > 0.999  # both are raised to the same level


# Vocoder


@pytest.fixture(scope="module")
def voice() -> vocoder.Vocoder:
    torch.manual_seed(0)
    return vocoder.build(Vocoder(dim=16, intermediate_dim=32, num_layers=1)).eval()


def test_vocoder_spans_the_hops_between_frames(voice):
    mel = audio.mel(torch.from_numpy(noise(audio.CLIP_SAMPLES)))
    wave = voice.decode(mel)
    assert wave.shape == (1, (audio.CLIP_FRAMES - 1) * audio.HOP_LENGTH)
    assert audio.mel(wave).shape == mel.shape
    assert not wave.requires_grad and voice(mel).requires_grad


@pytest.mark.parametrize("shape", [(1, 100, 1), (1, 80, 50), (100, 50)])
def test_vocoder_refuses(voice, shape):
    with pytest.raises(ValueError, match="mel of shape"):
        voice.decode(torch.zeros(shape))
    with pytest.raises(ValueError, match="mel of shape"):
        vocoder.griffin_lim(torch.zeros(shape))


def test_griffin_lim_comes_back_to_the_mel_and_repeats():
    t = torch.arange(12_000) / audio.SAMPLE_RATE
    tone = sum(torch.sin(2 * torch.pi * 150 * k * t) / k for k in range(1, 20)) * 0.1
    mel = audio.mel(tone)
    wave = vocoder.griffin_lim(mel, 16)
    assert (audio.mel(wave) - mel)[..., 3:-3].abs().mean() < 0.5
    torch.testing.assert_close(wave, vocoder.griffin_lim(mel, 16))
    for frames in (2, 3, 4):
        assert vocoder.griffin_lim(mel[..., :frames], 2).shape == (1, (frames - 1) * 256)


def test_mini_sizes():
    assert sum(v.numel() for v in vocoder.build(MINI.vocoder).state_dict().values()) * 2 <= 5.3e6
    assert sum(v.numel() for v in speaker.build(MINI.speaker_encoder).state_dict().values()) * 2 <= 4.3e6


# Trainers, on a corpus of noise with four speakers


def tiny_profile():
    from dataclasses import replace

    return replace(
        MINI,
        recognizer=Recognizer(channels=64, hidden=16, layers=2),  # of 16, see `EARS` in test_training
        speaker_encoder=SpeakerEncoder(channels=(16, 16, 16, 16, 48)),
        vocoder=Vocoder(dim=16, intermediate_dim=32, num_layers=1),
    )


@pytest.mark.parametrize("name", ["recognizer", "speaker", "vocoder"])
def test_trainer_resumes_and_exports(toy_corpus, monkeypatch, name):
    import importlib

    from pvlib import hub

    trainer = importlib.import_module(f"pvlib.training.{name}")
    if name == "vocoder":
        monkeypatch.setattr(trainer, "BATCH", 2)
        monkeypatch.setattr(trainer, "CROP_SAMPLES", 9_728)
        hum = torch.from_numpy(noise(60_000))[None]  # the comparison has its own test
        monkeypatch.setattr(vocoder, "griffin_lim", lambda mel, _: hum[:, : (mel.shape[-1] - 1) * 256])
    profile = tiny_profile()
    trainer.train(profile, steps=1)
    card = hub.read_card(trainer.NAME, profile)
    assert card["steps"] == 1 and card["quality"]
    trainer.train(profile, steps=3)  # goes on from step 1, the vocoder with its discriminators
    hub.weights_path(trainer.NAME, profile).unlink()
    trainer.export(profile)
    assert hub.read_card(trainer.NAME, profile)["steps"] == 3
    model = getattr(hub, f"load_{trainer.NAME}")(profile)
    state = torch.load(paths.TRAINING / trainer.NAME / "state.pt", weights_only=True)
    for key, value in state["parts"]["ema"]["shadow"].items():
        torch.testing.assert_close(model.state_dict()[key], value, atol=2e-3, rtol=2e-3)


def test_pieces_keep_the_first_letters_of_a_cut_word():
    from pvlib.training.recognizer import piece

    words = [["red", 0.0, 0.3], ["elephant", 0.3, 1.1]]

    class FromTheStart:
        def random(self):
            return 1.0

    start, stop, text = piece(words, 120, 0.7, FromTheStart())
    assert (start, stop, text) == (0, 66, "red elep")


def test_pieces_of_all_frames_are_what_padding_makes_of_each(toy_corpus):
    from pvlib.training.features import mel_cache, on_device, pad, pieces

    cache = mel_cache("train")
    cut = [(0, 0, cache.lengths[0]), (3, 10, 40), (7, 5, 6)]  # utterance, first frame, last + 1
    frames, lengths = pad([cache.mel(i, a, b) for i, a, b in cut])
    sound = on_device(cache.frames, torch.device("cpu"))
    made, counts = pieces(sound, [int(cache.offsets[i]) + a for i, a, _ in cut], [b - a for _, a, b in cut])
    assert torch.equal(made, frames) and torch.equal(counts, lengths)


def test_the_recogniser_hears_both_splits_in_turns_and_the_hard_twice(toy_corpus, monkeypatch):
    from pvlib.training import recognizer as trainer

    monkeypatch.setattr(trainer, "HARD_ROOMS", ("r1",))
    monkeypatch.setattr(trainer, "HARD_VOICES", "v7")
    source = trainer.Source("train-voices", torch.device("cpu"))
    batches = source.batches(1, start=0, larger=1)
    heard = sorted(next(batches))  # of so few all are in one batch
    assert heard == [0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 7]  # r1 is the room of 1, 4 and 7, v7 the voice of 7
    mel, lengths, texts = source.speech([7, 2])
    assert lengths.tolist() == [source.sizes[7], source.sizes[2]] and texts == ["red fox"] * 2
    asked = []
    monkeypatch.setattr(
        trainer.Source,
        "speech",
        lambda self, rows, rng: asked.append(self.corpus.split) or (mel, lengths, texts),
    )
    trainer.train(tiny_profile(), steps=4)
    trainer.train(tiny_profile(), steps=7)
    for split, before in (("train", [0, 1, 1, 1, 2]), ("train-voices", [0, 0, 1, 2, 2])):
        assert [trainer.batches_before(step, split) for step in range(5)] == before
    assert asked == ["train", "train-voices", "train-voices"] * 2 + ["train"]


def test_crops_are_stretches_of_the_corpus_at_other_levels(toy_corpus, monkeypatch):
    from pvlib.training import vocoder as trainer
    from pvlib.training.common import TrainingError
    from pvlib.world import corpus

    train = corpus.open_split("train")
    with pytest.raises(TrainingError, match="no utterance has 38912 samples"):
        trainer.Crops(train, torch.device("cpu"))
    monkeypatch.setattr(trainer, "CROP_SAMPLES", 28_000)
    crops = trainer.Crops(train, torch.device("cpu")).batch(6, np.random.default_rng(1))
    assert crops.shape == (6, 28_000) and crops.abs().max() <= 1
    waves = [train.wave(i) for i in range(len(train)) if len(train.wave(i)) >= 28_000]
    for crop in crops.numpy():
        found = [
            np.corrcoef(wave[k : k + 500], crop[:500])[0, 1]
            for wave in waves
            for k in range(len(wave) - 28_000 + 1)
        ]
        assert max(found) > 0.999


def test_mel_cache_equals_the_mels_and_notices_another_corpus(toy_corpus):
    from pvlib.training.features import mel_cache
    from pvlib.world import corpus

    cache, train = mel_cache("train"), corpus.open_split("train")
    expected = audio.mel(torch.from_numpy(train.wave(3)))[0].T
    torch.testing.assert_close(torch.from_numpy(cache.mel(3)).float(), expected, atol=5e-3, rtol=1e-3)
    assert cache.lengths[3] == len(expected) and len(cache) == len(train)
    (paths.WORLD / "train.pcm").write_bytes((paths.WORLD / "dev.pcm").read_bytes())
    other = audio.mel(torch.from_numpy(corpus.open_split("train").wave(0)))[0].T
    torch.testing.assert_close(
        torch.from_numpy(mel_cache("train").mel(0)).float(), other, atol=5e-3, rtol=1e-3
    )


# The vocoder on mels that the backbone drew again


@pytest.fixture
def drawn(toy_corpus, monkeypatch):
    """A profile whose tiny backbone, recogniser and vocoder are there, and sizes that the toy corpus has."""
    from dataclasses import replace

    from pvlib import backbone, hub, recognizer
    from pvlib.training import redrawn, vocoder_redrawn

    tiny = replace(
        tiny_profile(),
        inference=replace(MINI.inference, steps=3),
        backbone=replace(MINI.backbone, dim=32, depth=1, heads=1, dim_head=32, text_dim=16, conv_layers=1),
    )
    for name, build in (("backbone", backbone), ("recognizer", recognizer), ("vocoder", vocoder)):
        settings = getattr(tiny, name)
        hub.save_weights(
            name,
            tiny,
            build.build(settings).state_dict(),
            {"steps": 5, "seconds": 1, "command": "by hand", "machine": "none"},
        )
    monkeypatch.setattr(redrawn, "FRAMES", (100, 120))
    monkeypatch.setattr(vocoder_redrawn.vocoder, "CROP_SAMPLES", 2_048)
    return tiny


def test_what_is_drawn_again_keeps_its_first_second_and_more_of_the_rest_the_later_it_begins(drawn):
    from pvlib import hub
    from pvlib.training import redrawn
    from pvlib.training.backbone import Rows

    model = hub.load_backbone(drawn)
    rows = Rows("train", model)
    true = rows.mels([2, 5], [1.0, 1.0])[0]
    far = []
    for begin in (0.1, 0.6, 0.99):
        mels = redrawn.draw_again(model, rows, [2, 5], begin, 1, drawn)
        assert [len(mel) for mel in mels] == [rows.lengths[2], rows.lengths[5]]
        for mel, truth in zip(mels, true, strict=True):
            assert torch.equal(mel[: audio.CLIP_FRAMES], truth[: audio.CLIP_FRAMES])
        far.append(float((mels[1][94:] - true[1, 94 : len(mels[1])]).abs().mean()))
    assert far[0] > far[1] > far[2] and far[2] < 0.2
    made = redrawn.redrawn(drawn, torch.device("cpu"))
    assert made.utterances.tolist() == [i for i in range(8) if 100 <= rows.lengths[i] <= 120]
    assert np.diff(made.offsets).tolist() == [rows.lengths[i] for i in made.utterances]


def test_pairs_are_in_time(drawn):
    """A crop whose mel is the true one of the whole utterance, at a crop's level, is the mel of its wave."""
    from pvlib.training import vocoder_redrawn as trainer
    from pvlib.training.features import mel_cache
    from pvlib.training.redrawn import Redrawn
    from pvlib.world import corpus as world

    cache = mel_cache("train")
    kept = np.array([1, 4, 6])
    made = Redrawn(
        np.concatenate([cache.mel(i) for i in kept]),
        np.cumsum([0, *(cache.lengths[i] for i in kept)]),
        kept,
    )
    pairs = trainer.Pairs(world.open_split("train"), made, torch.device("cpu"))
    mel, wave = pairs.batch(5, np.random.default_rng(3))
    assert wave.shape == (5, 2_048) and mel.shape == (5, 100, 9) and wave.abs().max() <= 1
    inside = slice(2, -2)  # the frames whose window a crop has whole
    assert (audio.mel(wave)[..., inside] - mel[..., inside]).abs().mean() < 0.01


def test_the_vocoder_goes_on_from_its_weights_and_a_state_of_others_is_refused(drawn, monkeypatch):
    from pvlib import hub
    from pvlib.training import vocoder_redrawn as trainer
    from pvlib.training.common import TrainingError

    monkeypatch.setattr(trainer, "STEPS", 4)
    monkeypatch.setattr(trainer.vocoder, "evaluate", lambda *given, **limits: {"mel_error": 1.0})
    monkeypatch.setattr(trainer, "clones", lambda profile, model: {"dnsmos_clones": 2.0})
    before = hub.read_weights("vocoder", drawn)

    monkeypatch.setattr(trainer, "WARMUP", 1)
    seen, logged = [], trainer.Run.loop
    monkeypatch.setattr(
        trainer.Run,
        "loop",
        lambda run, step, **options: logged(
            run, lambda index: seen.append(made := step(index)) or made, **options
        ),
    )
    trainer.train(drawn, steps=7)
    trainer.train(drawn)  # goes on from step 7 to 9
    assert hub.read_card("vocoder", drawn)["steps"] == 9
    # falls over the steps since the first of this lesson, of which there were to be 2, then 4
    assert [values["rate"] / trainer.PEAK_RATE for values in seen] == pytest.approx([1, 0.5, 0.5, 0.25])
    commands = hub.read_card("vocoder", drawn)["command"]
    assert commands.startswith("by hand; from step 5: pvlib train vocoder-redrawn --steps 7")
    assert "--from-weights" not in commands
    after = hub.read_weights("vocoder", drawn)
    assert any(not torch.equal(before[key], after[key]) for key in before)
    trainer.train(drawn)  # nothing is left to do
    other = {key: value + 0.1 for key, value in before.items()}
    hub.save_weights("vocoder", drawn, other, {"steps": 5})
    with pytest.raises(TrainingError, match="goes on from another vocoder than the present weights"):
        trainer.train(drawn)


def test_a_log_gets_the_columns_that_are_new_to_it(tmp_path, monkeypatch):
    from pvlib.training.common import Run

    monkeypatch.setattr(paths, "TRAINING", tmp_path)
    run = Run("toy", {}, config=MINI.vocoder)
    run.log({"mel": 1.0})
    run.log({"mel": 0.5, "redrawn": 2.0})
    run.log({"mel": 0.25})
    assert (run.folder / "log.csv").read_text().split() == [
        "step,seconds,mel,redrawn", "0,0.0,1.0,", "0,0.0,0.5,2.0", "0,0.0,0.25,",
    ]  # fmt: skip
