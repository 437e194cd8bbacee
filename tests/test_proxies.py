"""UTMOS and SIM-o: the published files, written here in small with random weights, through the real loaders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from babble import babble

from pvlib import hub, models, paths
from pvlib.config import MINI, PAPER
from pvlib.hub import WeightsError
from pvlib.metrics import proxies
from pvlib.metrics.judges import Exhibit, Judges
from pvlib.study import evaluate, ledger, manifest, measure, tables
from pvlib.study import rows as row_files

UTMOS_FILE, WAVLM = (next(m for m in models.MODELS if m.proxy == name) for name in ("utmos", "sim_o"))
SMALL_WAVLM = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "conv_dim": [32] * 7,
    "tdnn_dim": [24, 24, 24, 24, 48], "xvector_output_dim": 512, "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}  # fmt: skip


def published(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state of UTMOS's class as the SpeechMOS release has it: one listener and one domain, shorter names."""
    found = {"wav2vec2.mask_emb": torch.zeros(4)}
    for name, weight in network.state_dict().items():
        name = name.replace("feature_extractors.0.ssl_model.", "wav2vec2.")
        name = name.replace("output_layers.0.decoder_rnn.", "blstm.")
        name = name.replace("output_layers.1.net.0.", "projection.0.").replace(
            "output_layers.1.net.3.", "projection.2."
        )
        if name == "feature_extractors.1.embedding.weight":
            name, weight = "domain_emb", weight[:1]
        if name == "output_layers.0.judge_embedding.weight":
            name, weight = "judge_emb", weight[proxies.LISTENER : proxies.LISTENER + 1]
        found[name] = weight
    return found


@pytest.fixture
def small_utmos(monkeypatch):
    """UTMOS's class with two thin transformer layers; its state as published."""
    from utmos_pytorch import utmos_torch

    usual = utmos_torch.Wav2Vec2Config
    monkeypatch.setattr(
        utmos_torch, "Wav2Vec2Config", lambda: usual(encoder_layers=2, encoder_ffn_embed_dim=64)
    )
    torch.manual_seed(0)
    return proxies.build_utmos()


@pytest.fixture
def caches(tmp_path, monkeypatch, small_utmos):
    """Both models where their loaders look, written by the official classes."""
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    torch.save(published(small_utmos), folder / UTMOS_FILE.files[0])
    small = {UTMOS_FILE.files[0]: hub.sha256(folder / UTMOS_FILE.files[0])}
    snapshot = tmp_path / "hub" / "models--microsoft--wavlm-base-plus-sv" / "snapshots" / WAVLM.revision
    torch.manual_seed(0)
    network = WavLMForXVector(WavLMConfig(**SMALL_WAVLM))
    network.save_pretrained(snapshot)
    (snapshot / "model.safetensors").unlink()
    torch.save(network.state_dict(), snapshot / "pytorch_model.bin")  # as it is published
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    others = [m for m in models.MODELS if m is not UTMOS_FILE]
    monkeypatch.setattr(models, "MODELS", (*others, replace(UTMOS_FILE, sha256=small, sizes={})))
    return tmp_path


def test_the_published_size_follows_from_the_class():
    """SpeechMOS prints the size of its file; names and shapes of the class, one listener and one domain, give it."""
    with torch.device("meta"):
        network = proxies.build_utmos()
    state = published(network) | {"wav2vec2.mask_emb": torch.empty(768, device="meta")}
    numbers = 4 * sum(weight.numel() for weight in state.values())
    [size] = UTMOS_FILE.sizes.values()
    assert 0 < size - numbers < 500 * len(state)  # what a zip archive adds for each tensor
    proxies.fit(network, proxies.official_names(state, network))  # all names, all shapes


def test_a_score_is_that_of_the_class(small_utmos, tmp_path):
    """The published layout gives the score that the package gives of its own layout."""
    from utmos_pytorch import UTMOSScoreTorch

    torch.save(small_utmos.state_dict(), tmp_path / "own.pt")
    theirs = UTMOSScoreTorch(str(tmp_path / "own.pt"))
    wave = babble(1.0)
    heard = torch.from_numpy(proxies._heard(wave))
    ours = proxies.UTMOS(published(small_utmos)).score([wave, babble(0.7)])
    assert ours[0] == pytest.approx(float(theirs.score(heard)), abs=1e-5)
    assert ours[0] != ours[1] and all(np.isfinite(ours))


def test_other_weights_are_refused(small_utmos):
    state = published(small_utmos)
    for other in (
        {k: v for k, v in state.items() if k != "projection.2.bias"},
        state | {"more": torch.zeros(1)},
        state | {"projection.2.bias": torch.zeros(2)},
        state | {"judge_emb": torch.zeros(1, 64)},
        state | {"domain_emb": torch.zeros(3, 128)[:2]},
    ):
        with pytest.raises(WeightsError, match=r"not the weights of the strong learner .* replaces it"):
            proxies.UTMOS(other)


def test_voices_are_embedded_one_by_one(caches):
    """An utterance's embedding does not depend on its company, has norm 1, and is there for a short one too."""
    wavlm = proxies.load("sim_o")
    waves = [babble(1.0), babble(2.0), babble(0.05)]
    together = wavlm.embed(waves)
    assert together.shape == (3, 512) and np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert np.allclose(together[1], wavlm.embed(waves[1:2])[0], atol=1e-6)
    assert not np.allclose(together[0], together[1], atol=1e-3)


def test_wavlm_without_its_head_is_refused(caches):
    [weights] = (caches / "hub").rglob("pytorch_model.bin")
    state = torch.load(weights, weights_only=True)
    torch.save({k: v for k, v in state.items() if not k.startswith("tdnn")}, weights)
    with pytest.raises(WeightsError, match="not WavLM with an x-vector head"):
        proxies.load("sim_o")
    with pytest.raises(WeightsError, match="cannot be read as WavLM"):
        proxies.WavLMSpeaker(caches)
    weights.write_bytes(b"half")
    with pytest.raises(WeightsError, match=r"WavLM Base\+ SV is damaged"):
        proxies.load("sim_o")


def test_a_proxy_needs_samples(small_utmos):
    with pytest.raises(ValueError, match="needs samples"):
        proxies.UTMOS(published(small_utmos)).score([np.zeros(0, np.float32)])


def test_what_is_missing_or_altered_is_told_with_the_command(caches):
    [file] = (caches / "torch").rglob("*.pt")
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(WeightsError, match=r"UTMOS22 strong is damaged .* `pvlib models download`"):
        proxies.load("utmos")
    file.unlink()
    with pytest.raises(WeightsError, match=r"UTMOS22 strong is missing .* `pvlib models download`"):
        proxies.load("utmos")


def test_only_a_profile_that_names_proxies_has_them(monkeypatch):
    assert type(proxies.panel(MINI)) is Judges and MINI.proxies == ()
    both = proxies.panel(PAPER)
    monkeypatch.setattr(hub, "fingerprint", lambda name, profile: name)
    told = both.fingerprint()["proxies"]
    assert told["names"] == ["sim_o", "utmos"] and told["revisions"]["sim_o"] == WAVLM.revision
    assert "proxies" not in proxies.panel(replace(PAPER, proxies=())).fingerprint()


def test_rows_of_a_profile_with_proxies_carry_them(caches, tmp_path, monkeypatch):
    """A study of two true recordings, from the judges to the table, the CSV and back."""
    monkeypatch.setattr(paths, "WORKING_ROWS", tmp_path / "rows")
    profile = replace(MINI, proxies=("utmos", "sim_o"))
    made = evaluate.evaluate(profile, ["ground-truth", "impostor"], 3, progress=False)
    assert made[["utmos", "sim_o"]].notna().all().all()
    again = evaluate.finished(profile, ["ground-truth", "impostor"], 3)
    pd.testing.assert_frame_equal(made, again, atol=1e-5)
    judges = evaluate.shared_judges(profile)
    sample = manifest.read(profile.manifest)
    request = sample.requests(sample.sample(3))[0]
    wave = babble(1.0)
    [verdict] = judges.judge([Exhibit(wave, request.text, request.clip, {})])
    assert verdict.utmos == pytest.approx(proxies.load("utmos").score([wave])[0], abs=1e-5)
    one, other = proxies.load("sim_o").embed([wave, request.clip])
    assert verdict.sim_o == pytest.approx(float(one @ other), abs=1e-5)
    found = measure.measure(made, strata=["overall"])
    line = measure.lookup(found, "utmos", "overall", "ground-truth")
    assert line["value"] == pytest.approx(made[made["system"] == "ground-truth"]["utmos"].mean())
    table = tables.key_results(made)
    assert {"UTMOS (proxy)", "SIM-o, WavLM, against the clip", "DNSMOS (proxy)"} <= set(table.index)
    assert "3.8 4.0" in " ".join(table.loc["UTMOS (proxy)"])
    assert "3.8" not in " ".join(table.loc["DNSMOS (proxy)"])


def test_rows_without_proxies_are_as_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "WORKING_ROWS", tmp_path / "rows")
    made = evaluate.evaluate(MINI, ["ground-truth"], 2, progress=False)
    assert list(made) == list(row_files.COLUMNS)
    assert not set(row_files.PROXIES) & set(measure.measure(made)["metric"])
    title = next(t for t in tables.key_results(made).index if t.startswith("DNSMOS"))
    assert "UTMOS, another scale" in title


def test_the_printed_utmos_is_held_against_a_measured_one():
    """With rows of the profile `paper` the ledger decides; without, it names the command."""
    claims = [c for c in ledger.load() if c.id in ("utmos-personavoice", "utmos-f5")]
    words = "the river is cold tonight and the lamp is low"
    rows = pd.DataFrame(
        {
            "system": "personavoice", "utterance": f"u{i}", "speaker": f"s{i % 40}", "words": 10, "bucket": "long",
            "reference_seconds": 1.0, "seed": i, "text": words, "reference_text": "", "hypothesis": words, "wer": 0.0,
            "wer_capped": 0.0, "secs_ecapa_clip": 0.5, "secs_ecapa_speaker": 0.5, "secs_ge2e_clip": 0.5,
            "secs_ge2e_speaker": 0.5, "dnsmos": 3.0, "generated_seconds": 3.0, "synthesis_seconds": 1.0, "error": "",
            "utmos": 3.0 + 0.01 * (i % 7), "sim_o": 0.4,
        }
        for i in range(200)
    )  # fmt: skip
    board = ledger.scoreboard(ledger.Evidence("paper", rows), claims).set_index("id")
    assert board.loc["utmos-personavoice", "verdict"] == "contradicted"
    assert board.loc["utmos-f5", "verdict"] == "untested"
    none = ledger.scoreboard(ledger.Evidence("mini"), claims).set_index("id")
    assert set(none["verdict"]) == {"untested"} and none["evidence"].str.contains("--profile paper").all()


def test_the_catalogue_says_what_reads_each_proxy():
    assert json.dumps([m.name for m in models.needed(PAPER)]).count("UTMOS") == 1
    assert not any(m.proxy for m in models.needed(PAPER, judged=False))
    assert Path(models.folder(UTMOS_FILE)).name == "checkpoints"
