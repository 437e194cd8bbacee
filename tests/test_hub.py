"""Weights: what is written is read back, whatever else lies there is refused with the remedy; official names fit."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from importlib.resources import files

import pytest
import torch
from safetensors.torch import save, save_file
from tiny import TINY

from pvlib import backbone, hub, paths, recognizer, speaker, vocoder
from pvlib.config import MINI, PAPER
from pvlib.hub import WeightsError

BUILDERS = {
    "backbone": backbone.build,
    "vocoder": vocoder.build,
    "speaker_encoder": speaker.build,
    "recognizer": recognizer.build,
}
CARD = {
    "command": "pvlib train recognizer",
    "data": "none",
    "steps": 0,
    "seconds": 0,
    "quality": {"wer": 1.0},
}


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    return tmp_path


def tiny(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return BUILDERS[name](getattr(TINY, name))


@pytest.fixture
def saved(checkpoints):
    """A tiny recogniser's weights on disk."""
    return hub.save_weights("recognizer", TINY, tiny("recognizer").state_dict(), CARD)


@pytest.mark.parametrize("name", hub.NAMES)
def test_every_model_comes_back_in_half_precision(checkpoints, name):
    model = tiny(name)
    path = hub.save_weights(name, TINY, model.state_dict(), CARD)
    assert path == checkpoints / "tiny" / f"{name}.safetensors"
    loaded = getattr(hub, f"load_{name}")(TINY, "cpu")
    assert not loaded.training
    for key, value in model.state_dict().items():
        expected = value.half().float() if value.dtype.is_floating_point else value
        assert torch.equal(loaded.state_dict()[key], expected), key


def test_the_card_tells_what_the_file_is(saved):
    card = hub.read_card("recognizer", TINY)
    assert card["sha256"] == hub.sha256(saved) == hub.fingerprint("recognizer", TINY)
    assert card["bytes"] == saved.stat().st_size
    assert card["config"]["hidden"] == 16
    assert card["quality"] == {"wer": 1.0} and card["command"] == CARD["command"] and len(card["date"]) == 10
    assert sorted(p.name for p in saved.parent.iterdir()) == ["recognizer.json", "recognizer.safetensors"]


def test_a_training_configuration_is_kept_apart(checkpoints):
    hub.save_weights(
        "recognizer", TINY, {"a": torch.ones(1)}, {**CARD, "config": {"lr": 1e-3, "shape": (1, 2)}}
    )
    card = hub.read_card("recognizer", TINY)
    assert card["training_config"] == {"lr": 1e-3, "shape": [1, 2]} and card["config"]["hidden"] == 16


def test_missing_weights(checkpoints):
    with pytest.raises(
        WeightsError, match=r"speaker_encoder\.safetensors is missing; .*`pvlib train speaker`"
    ):
        hub.load_speaker_encoder(TINY)


def test_truncated_weights(saved):
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"truncated\?\); restore it with `git checkout"):
        hub.read_weights("recognizer", TINY)


def test_altered_weights(saved):
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(WeightsError, match=r"SHA-256 .*altered\?\)"):
        hub.read_weights("recognizer", TINY)


def test_weights_of_another_configuration(saved):
    other = replace(TINY, recognizer=replace(TINY.recognizer, hidden=32))
    with pytest.raises(WeightsError, match=r"checkpoint of another configuration \(hidden differ"):
        hub.load_recognizer(other)


def test_weights_that_do_not_fit_the_code(checkpoints):
    state = tiny("recognizer").state_dict()
    state["head.extra"] = state.pop("head.bias")
    hub.save_weights("recognizer", TINY, state, CARD)
    with pytest.raises(WeightsError, match=r"1 missing \['head.bias'\], 1 unexpected \['head.extra'\]"):
        hub.load_recognizer(TINY)


@pytest.mark.parametrize("content", ["", "[]", '{"sha256": "0"}'])
def test_a_card_that_is_none(saved, content):
    saved.with_suffix(".json").write_text(content)
    with pytest.raises(WeightsError, match="not a card of weights"):
        hub.read_weights("recognizer", TINY)


def test_a_file_that_is_no_safetensors_though_its_card_agrees(saved):
    saved.write_bytes(b"not tensors")
    card = json.loads(saved.with_suffix(".json").read_text())
    card.update(bytes=11, sha256=hub.sha256(saved))
    saved.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(WeightsError, match="not a safetensors file"):
        hub.read_weights("recognizer", TINY)


def test_a_full_disk_leaves_the_old_weights_whole(saved):
    before = {p.name: p.read_bytes() for p in saved.parent.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(WeightsError, match="cannot write .*space"):
            hub.save_weights("recognizer", TINY, tiny("recognizer").state_dict(), CARD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {p.name: p.read_bytes() for p in saved.parent.iterdir()} == before


def test_values_beyond_half_precision_are_refused(checkpoints):
    with pytest.raises(WeightsError, match="big holds values that are not finite in fp16"):
        hub.save_weights("recognizer", TINY, {"big": torch.tensor([1e6])}, CARD)
    assert not list(checkpoints.rglob("*.*"))


def test_an_unknown_model():
    with pytest.raises(WeightsError, match="no model 'vocder': choose one of backbone, vocoder"):
        hub.weights_path("vocder", MINI)


# Official weights, offline: names and numbers against the official package, files made here


def vocabulary_file():
    return files("f5_tts").joinpath("infer/examples/vocab.txt")


def test_vocabulary_is_read_as_the_official_tokenizer_reads_it(tmp_path):
    from f5_tts.model.utils import get_tokenizer

    official, size = get_tokenizer(str(vocabulary_file()), "custom")
    assert hub.read_vocabulary(vocabulary_file()) == official and size == 2545
    (tmp_path / "vocab.txt").write_text("<html>\nnot found")
    with pytest.raises(WeightsError, match=r"vocab\.txt is not a vocabulary"):
        hub.read_vocabulary(tmp_path / "vocab.txt")


def test_the_paper_backbone_has_the_official_names_and_size():
    with torch.device("meta"):
        model = backbone.build(PAPER.backbone, hub.read_vocabulary(vocabulary_file()))
    assert sum(p.numel() for p in model.parameters()) == 337_096_804
    own = model.cfm.state_dict()
    checkpoint = {f"ema_model.{key}": value for key, value in own.items()}
    checkpoint |= {"initted": torch.tensor(True), "step": torch.tensor(1_250_000)}
    checkpoint["ema_model.mel_spec.mel_stft.spectrogram.window"] = torch.ones(1024)
    assert hub.official_backbone_state(checkpoint).keys() == own.keys()
    checkpoint.popitem()
    checkpoint.pop(next(iter(checkpoint)))
    with pytest.raises(WeightsError, match="363 entries instead of 364"):
        hub.official_backbone_state(checkpoint)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A stand-in for the Hugging Face cache: files laid under tmp_path/<file> are found, others are not."""

    def fetch(repository, file):
        if not (tmp_path / file).exists():
            raise WeightsError(hub._offline(repository, file, OSError("no network")))
        return tmp_path / file

    monkeypatch.setattr(hub, "_fetch", fetch)
    return tmp_path


OFFICIAL = replace(
    TINY,
    sources=PAPER.sources,
    backbone=replace(TINY.backbone, text_conditioning="padded", stack=1, vocabulary=""),
)


def test_official_backbone_is_loaded(cache, monkeypatch):
    vocabulary = " abc"
    model = backbone.build(OFFICIAL.backbone, {c: i for i, c in enumerate(vocabulary)})
    state = {k: torch.randn_like(v) for k, v in model.cfm.state_dict().items()}
    monkeypatch.setattr(hub, "BACKBONE_ENTRIES", len(state))
    (cache / "F5TTS_v1_Base").mkdir()
    (cache / hub.BACKBONE_VOCABULARY).write_text("\n".join(vocabulary) + "\n")
    save_file(
        {f"ema_model.{k}": v for k, v in state.items()} | {"step": torch.ones(1)},
        cache / hub.BACKBONE_WEIGHTS,
    )
    loaded = hub.load_backbone(OFFICIAL)
    assert loaded.vocabulary == {" ": 0, "a": 1, "b": 2, "c": 3}
    assert all(torch.equal(loaded.cfm.state_dict()[k], v) for k, v in state.items())


def test_official_vocoder_and_speaker_encoder_are_loaded(cache):
    state = {k: torch.rand_like(v) for k, v in tiny("vocoder").state_dict().items()}
    torch.save(
        state | {"feature_extractor.mel_spec.mel_scale.fb": torch.ones(513, 100)}, cache / "pytorch_model.bin"
    )
    loaded = hub.load_vocoder(OFFICIAL)
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in state.items())

    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    network = ECAPA_TDNN(80, lin_neurons=192, channels=[16, 16, 16, 16, 48])
    torch.save(network.state_dict(), cache / "embedding_model.ckpt")
    loaded = hub.load_speaker_encoder(OFFICIAL)
    values = {k.removeprefix("network."): v for k, v in loaded.state_dict().items()}
    assert all(torch.equal(values[k], v) for k, v in network.state_dict().items())


def test_code_in_a_pickle_is_not_run(cache):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was executed",))

    torch.save({"backbone": Bomb()}, cache / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="not a file of tensors"):
        hub.load_vocoder(OFFICIAL)


def test_damaged_official_files_are_named_with_the_remedy(cache):
    """One line each, the file and `pvlib models download` in it."""
    (cache / "F5TTS_v1_Base").mkdir()
    for name, file, content, complaint in (
        ("backbone", hub.BACKBONE_VOCABULARY, b"<html>", "is not a vocabulary"),
        ("backbone", hub.BACKBONE_VOCABULARY, b"\xff\xfe", "cannot be read as a vocabulary"),
        ("backbone", hub.BACKBONE_VOCABULARY, b" \na\n", ""),
        ("backbone", hub.BACKBONE_WEIGHTS, b"half", "is not a safetensors file"),
        ("backbone", hub.BACKBONE_WEIGHTS, save({"a": torch.ones(1)}), "holds 1 entries instead of 364"),
        ("vocoder", hub.VOCODER_WEIGHTS, b"half", "is not a file of tensors"),
        ("speaker_encoder", hub.SPEAKER_ENCODER_WEIGHTS, b"", "is not a file of tensors"),
    ):
        (cache / file).write_bytes(content)
        if complaint:
            with pytest.raises(WeightsError) as caught:
                getattr(hub, f"load_{name}")(OFFICIAL)
            message = str(caught.value)
            assert file in message and complaint in message and "\n" not in message, message
            assert "`pvlib models download`" in message and "git checkout" not in message


def test_official_weights_of_another_shape_are_not_told_to_be_the_commits(cache):
    state = tiny("vocoder").state_dict()
    state["surplus"] = torch.ones(1)
    torch.save(state, cache / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"1 unexpected \['surplus'\].*`pvlib models download`"):
        hub.load_vocoder(OFFICIAL)
    torch.save([torch.ones(1)], cache / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"is not a file of tensors.*`pvlib models download`"):
        hub.load_vocoder(OFFICIAL)


@pytest.mark.parametrize("name", hub.NAMES)
def test_offline_and_without_a_cache_the_error_says_what_to_do(tmp_path, monkeypatch, name):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = getattr(PAPER.sources, name)
    with pytest.raises(WeightsError) as caught:
        getattr(hub, f"load_{name}")(OFFICIAL)
    message = str(caught.value)
    assert "\n" not in message and repository in message and "HF_HOME" in message and "`mini`" in message
    assert "`pvlib models download`" in message


def test_a_damaged_download_is_noticed(tmp_path, monkeypatch):
    blob = tmp_path / ("0" * 64)
    blob.write_bytes(b"half a file")
    (tmp_path / "model.bin").symlink_to(blob)
    monkeypatch.setattr(hub, "_cached", lambda *_: tmp_path / "model.bin")
    with pytest.raises(WeightsError, match="does not match its SHA-256"):
        hub._fetch("a/b", "model.bin")
