"""The official models: what is here is told from what is missing or damaged, and downloads survive what befalls them.

The files are written here in the official layouts: a Hugging Face cache, and a hub on loopback.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import subprocess
import sys
import weakref
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save
from serving import serve

from pvlib import audio, backbone, cli, hub, models, paths, systems, vocoder
from pvlib.config import MINI, PAPER
from pvlib.fetch import FetchError
from pvlib.hub import WeightsError

COMMIT, OTHER = "1" * 40, "2" * 40
F5 = models.MODELS[0]
TABLE = "text_embed.text_embed.weight"
TENSORS = save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)})
SMALL = models.Model(
    name="small",
    repository="some/small",
    revision=COMMIT,
    files=("config.json", "model.safetensors"),
    size=len(TENSORS) + 2,
    licence="MIT",
    purpose="a test",
)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty Hugging Face cache, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "hub"


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lay(cache: Path, repository: str, revision: str, file: str, content: bytes, large: bool = True) -> Path:
    """One file as the Hugging Face client lays it: blobs/<hash>, and a link from the snapshot. Returns the blob."""
    root = cache / f"models--{repository.replace('/', '--')}"
    blob = root / "blobs" / (hashlib.sha256(content).hexdigest() if large else git_hash(content))
    link = root / "snapshots" / revision / file
    for folder in (blob.parent, link.parent, root / "refs"):
        folder.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    return blob


def lay_small(cache: Path) -> tuple[Path, Path]:
    config = lay(cache, "some/small", COMMIT, "config.json", b"{}", large=False)
    return config, lay(cache, "some/small", COMMIT, "model.safetensors", TENSORS)


# The catalogue


def test_the_catalogue_names_the_seeds_models():
    assert [m.repository.rpartition("/")[2] for m in models.models()] == [
        "F5-TTS", "vocos-mel-24khz", "spkrec-ecapa-voxceleb", "whisper-large-v3-turbo", "bert-base-chinese",
        "SpeechMOS (GitHub)", "wavlm-base-plus-sv",
    ]  # fmt: skip
    assert {m.name for m in models.models(optional=True) if m.optional} == {
        "Qwen2.5-0.5B",
        "all-MiniLM-L6-v2",
    }
    assert sorted(m.proxy for m in models.MODELS if m.proxy) == sorted(PAPER.proxies)
    sources = vars(PAPER.sources)
    assert {m.part: m.repository for m in models.MODELS if m.part} == sources
    assert set(hub.REVISIONS) == set(sources.values())
    for model in models.MODELS:
        assert model.licence and model.purpose and model.size >= sum(model.sizes.values())
        assert model.url or len(model.revision) == 40, "a branch is no pin"
        assert set(model.sizes) | set(model.sha256) <= set(model.files)
        assert all(len(value) == 64 for value in model.sha256.values())
    assert "NC" in F5.licence


def test_list_as_json(capsys):
    assert cli.main(["models", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["models"]
    assert listed[0]["revision"] == hub.REVISIONS["SWivid/F5-TTS"] and len(listed) == len(models.MODELS)


# F5-TTS at full size: names and shapes of the official class, in a file without content


def vocabulary() -> bytes:
    """The published vocab.txt: that of the package, with Windows line ends."""
    return files("f5_tts").joinpath("infer/examples/vocab.txt").read_bytes().replace(b"\n", b"\r\n")


@pytest.fixture(scope="module")
def official_entries() -> list[tuple[str, str, list[int]]]:
    entries = (
        files("f5_tts").joinpath("infer/examples/vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    )
    with torch.device("meta"):
        model = backbone.build(PAPER.backbone, {entry: index for index, entry in enumerate(entries)})
    found = [(f"ema_model.{name}", "F32", list(v.shape)) for name, v in model.cfm.state_dict().items()]
    return [*found, ("initted", "BOOL", []), ("step", "I64", [])]


def write_safetensors(path: Path, entries: list[tuple[str, str, list[int]]]) -> Path:
    """A safetensors file of the given names, types and shapes, laid out as the library does; the content is a hole."""
    width = {"I64": 8, "F32": 4, "BOOL": 1}
    header, offset = {}, 0
    for name, kind, shape in sorted(entries, key=lambda entry: (-width[entry[1]], entry[0])):
        end = offset + width[kind] * int(torch.Size(shape).numel())
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)
    return path


def lay_backbone(cache: Path, entries) -> Path:
    lay(cache, F5.repository, F5.revision, hub.BACKBONE_VOCABULARY, vocabulary())
    blob = lay(cache, F5.repository, F5.revision, hub.BACKBONE_WEIGHTS, b"")
    return write_safetensors(blob.rename(blob.with_name("no-hash")), entries)


def hollow(cache: Path, blob: Path) -> models.Model:
    """F5-TTS whose weights are not hashed: their content is a hole."""
    link = cache / "models--SWivid--F5-TTS" / "snapshots" / F5.revision / hub.BACKBONE_WEIGHTS
    link.unlink()
    link.symlink_to(blob)
    return replace(F5, sha256={hub.BACKBONE_VOCABULARY: F5.sha256[hub.BACKBONE_VOCABULARY]})


def test_all_364_entries_of_f5_tts_are_matched(cache, official_entries):
    blob = lay_backbone(cache, official_entries)
    assert blob.stat().st_size == F5.sizes[hub.BACKBONE_WEIGHTS] == 1_348_435_761
    assert blob.stat().st_blocks * 512 < 1e6, "it must be a hole"
    found = models.check(hollow(cache, blob))
    assert (found.state, found.detail) == (
        "present", f"revision {F5.revision}; 364 of 364 entries matched",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda entries: entries[1:], "363 entries instead of 364"),
        (lambda entries: [("ema_model.x", *entries[0][1:]), *entries[1:]], "363 of 364 entries matched"),
        (lambda entries: [(n, k, s[::-1] if n.endswith(TABLE) else s) for n, k, s in entries], "363 of 364"),
    ],
    ids=["one missing", "one renamed", "one turned"],
)  # fmt: skip
def test_another_f5_tts_is_damaged(cache, official_entries, change, told):
    blob = lay_backbone(cache, change(official_entries))
    found = models.check(replace(hollow(cache, blob), sizes={}))
    assert found.state == "damaged" and told in found.detail


def test_half_an_f5_tts_is_damaged(cache, official_entries):
    blob = lay_backbone(cache, official_entries)
    os.truncate(blob, 700_000_000)
    model = hollow(cache, blob)
    assert "has 700,000,000 bytes instead of 1,348,435,761" in models.check(model).detail
    assert "not a whole safetensors file" in models.check(replace(model, sizes={})).detail


# A hub cache with tiny models, through the real loaders

TINY = replace(
    MINI,
    name="tiny",
    sources=PAPER.sources,
    backbone=replace(
        MINI.backbone, dim=32, depth=2, heads=2, dim_head=16, text_dim=16, conv_layers=1, stack=1,
        text_conditioning="padded", vocabulary="",
    ),
    vocoder=replace(MINI.vocoder, dim=16, intermediate_dim=32, num_layers=1),
)  # fmt: skip


def test_the_loaders_read_the_pinned_revision_from_the_cache(cache, monkeypatch):
    letters = " abc"
    model = backbone.build(TINY.backbone, {c: i for i, c in enumerate(letters)})
    monkeypatch.setattr(hub, "BACKBONE_ENTRIES", len(model.cfm.state_dict()))
    for revision, value in ((F5.revision, 0.25), (OTHER, 0.5)):
        state = {f"ema_model.{k}": torch.full_like(v, value) for k, v in model.cfm.state_dict().items()}
        lay(cache, F5.repository, revision, hub.BACKBONE_WEIGHTS, save(state))
        lay(cache, F5.repository, revision, hub.BACKBONE_VOCABULARY, "\r\n".join(letters).encode() + b"\r\n")
    (cache / "models--SWivid--F5-TTS" / "refs" / "main").write_text(OTHER)
    loaded = hub.load_backbone(TINY)
    assert loaded.vocabulary == {" ": 0, "a": 1, "b": 2, "c": 3}
    assert all((v == 0.25).all() for v in loaded.cfm.state_dict().values())
    assert hub.fingerprint("backbone", TINY) == f"SWivid/F5-TTS@{F5.revision}"
    found = models.check(replace(F5, sizes={}, sha256={}), TINY)
    assert found.state == "present" and f"{len(model.cfm.state_dict())} entries matched" in found.detail


def test_a_vocoder_is_held_against_its_class(cache, tmp_path):
    model = replace(models.MODELS[1], sizes={}, sha256={})
    state = vocoder.build(TINY.vocoder).state_dict()
    for extra, expected in (
        ({"feature_extractor.mel_spec.mel_scale.fb": torch.ones(3)}, "present"),
        ({"surplus": torch.ones(3)}, "damaged"),
    ):
        torch.save(state | extra, tmp_path / "file")
        lay(cache, model.repository, model.revision, hub.VOCODER_WEIGHTS, (tmp_path / "file").read_bytes())
        assert models.check(model, TINY).state == expected
    assert "such as surplus" in models.check(model, TINY).detail


# Present, missing, damaged


def test_present_missing_and_damaged_are_told_apart(cache):
    assert models.check(SMALL).detail == "nothing of it is here"
    config, weights = lay_small(cache)
    assert models.check(SMALL).state == "present" and COMMIT in models.check(SMALL).detail
    link = cache / "models--some--small" / "snapshots" / COMMIT / "config.json"
    link.unlink()
    assert (models.check(SMALL).state, models.check(SMALL).detail) == ("missing", "config.json")
    lay_small(cache)
    weights.write_bytes(TENSORS[:-1] + b"!")
    found = models.check(SMALL)
    assert (found.state, found.damaged) == ("damaged", ("model.safetensors",))
    assert "does not match its SHA-256; `pvlib models download` replaces it" in found.detail
    weights.write_bytes(TENSORS)
    config.write_bytes(b"[]")
    assert models.check(SMALL).damaged == ("config.json",)
    lay(cache, "some/small", OTHER, "config.json", b"{}", large=False)
    assert models.check(replace(SMALL, revision="3" * 40)).state == "missing", (
        "another revision is another model"
    )


def share(cache: Path, blob: Path) -> Path:
    """Move a blob's content where recent clients keep it for all repositories, a link in its place.

    Its name there is a hash of another kind, as long as a SHA-256.
    """
    name = hashlib.blake2b(blob.read_bytes(), digest_size=32).hexdigest()
    kept = cache / "blobs" / name[:2] / name
    kept.parent.mkdir(parents=True)
    blob.rename(kept)
    blob.symlink_to(os.path.relpath(kept, blob.parent))
    return kept


def test_a_blob_in_a_store_that_repositories_share(cache, monkeypatch):
    monkeypatch.setitem(hub.REVISIONS, "some/small", COMMIT)
    config, weights = lay_small(cache)
    link = cache / "models--some--small" / "snapshots" / COMMIT / "model.safetensors"
    kept = share(cache, weights)
    assert link.resolve() == kept and hub.blob_of(link) == weights
    assert models.check(SMALL).state == "present"
    assert hub._fetch("some/small", "model.safetensors") == link
    kept.write_bytes(TENSORS[:-1] + b"!")
    found = models.check(SMALL)
    assert (found.state, found.damaged) == ("damaged", ("model.safetensors",))
    with pytest.raises(WeightsError, match=r"SHA-256; `pvlib models download` replaces it"):
        hub._fetch("some/small", "model.safetensors")
    models._forget(SMALL, "model.safetensors")
    assert not (kept.exists() or weights.is_symlink() or link.is_symlink()) and config.exists()


def test_a_cache_without_links(cache):
    """As on file systems that have none: no name tells the hash, a known one still counts."""
    folder = cache / "models--some--small" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(TENSORS)
    assert models.check(SMALL).state == "present"
    known = replace(SMALL, sha256={"model.safetensors": hashlib.sha256(TENSORS).hexdigest()})
    assert models.check(known).state == "present"
    (folder / "model.safetensors").write_bytes(TENSORS[:-1] + b"!")
    assert "does not match its SHA-256" in models.check(known).detail


def test_a_small_file_that_differs_from_its_git_hash_is_not_read(cache, monkeypatch):
    monkeypatch.setitem(hub.REVISIONS, "some/small", COMMIT)
    config, _ = lay_small(cache)
    config.write_bytes(b"[]")
    with pytest.raises(WeightsError, match=r"config.json\) does not match its git hash; `pvlib models down"):
        hub._fetch("some/small", "config.json")


def test_a_pickle_is_opened_without_running_it(cache, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was executed",))

    torch.save({"a": Bomb()}, tmp_path / "bomb")
    model = replace(SMALL, files=("pytorch_model.bin",))
    lay(cache, "some/small", COMMIT, "pytorch_model.bin", (tmp_path / "bomb").read_bytes())
    found = models.check(model)
    assert found.state == "damaged" and "not a file of tensors" in found.detail and "\n" not in found.detail


def test_utmos_lies_where_torch_hub_looks(cache):
    [model] = [m for m in models.MODELS if m.url]
    assert models.check(model).state == "missing"
    path = Path(torch.hub.get_dir()) / "checkpoints" / model.files[0]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    assert "has 4 bytes instead of 411,179,119" in models.check(model).detail


def test_utmos_is_not_fetched_offline_either(cache, monkeypatch):
    [model] = [m for m in models.MODELS if m.url]
    monkeypatch.setattr(models, "fetch", lambda *_, **__: pytest.fail("the network was asked"))
    with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE forbids .*TORCH_HOME") as caught:
        models.download([model], tell=lambda _: None)
    assert str(Path(torch.hub.get_dir()) / "checkpoints") in str(caught.value)


def test_info_tells_present_from_damaged_and_missing(cache, capsys):
    lay(cache, PAPER.sources.vocoder, hub.REVISIONS[PAPER.sources.vocoder], hub.VOCODER_WEIGHTS, b"half")
    assert cli.main(["info", "--profile", "paper", "--json"]) == 0
    states = {name: found["state"] for name, found in json.loads(capsys.readouterr().out)["weights"].items()}
    assert states.pop("vocoder") == "damaged" and set(states.values()) == {"missing", "not trained"}


def test_check_prints_everything_and_fails(cache, capsys):
    assert cli.main(["models", "check", "--json"]) == 2
    captured = capsys.readouterr()
    assert {v["state"] for v in json.loads(captured.out).values()} == {"missing"}
    assert captured.err.count("\n") == 1 and "run `pvlib models download`" in captured.err


def test_offline_nothing_is_asked_and_the_error_says_so(cache):
    with pytest.raises(
        WeightsError, match=r"some/small: config.json .*HF_HUB_OFFLINE forbids .*HF_HOME"
    ) as caught:
        models.download([SMALL], tell=lambda _: None)
    assert "\n" not in str(caught.value)
    lay_small(cache)
    told = []
    models.download([SMALL], tell=told.append)
    assert told == [f"small: present, revision {COMMIT}"]


def test_what_has_arrived_is_not_asked_room_for_again(cache, monkeypatch):
    digest = hashlib.sha256(TENSORS).hexdigest()
    known = replace(SMALL, sha256={"model.safetensors": digest}, sizes={"model.safetensors": len(TENSORS)})
    asked = []
    monkeypatch.setattr(models, "check_space", lambda *needs: asked.extend(size for _, size in needs))
    monkeypatch.setattr(models, "_get", lambda model, file, replace: lay_small(cache))
    part = cache / "models--some--small" / "blobs" / f"{digest}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(TENSORS[:10])
    models.download([known], tell=lambda _: None)
    assert asked == [SMALL.size - 10]


def test_too_little_space_is_told_before_the_first_byte(cache):
    with pytest.raises(FetchError, match="HF_HOME"):
        models.download([replace(SMALL, size=10**18)])


# A hub on loopback, and a process of its own, since HF_ENDPOINT and HF_HOME are read once

SCRIPT = """
import json, sys
from pvlib import models
models.RESUMED_FROM = 1000
asked = [models.Model(**{**m, "files": tuple(m["files"])}) for m in json.load(sys.stdin)]
for model in asked:
    try:
        models.download([model], tell=lambda line: print("ok " + line))
    except Exception as error:
        print(f"{type(error).__name__} {error}")
print("cache", models.location())
"""


def publish(
    server, repository: str, file: str, content: bytes, *, large: bool, revision: str = COMMIT
) -> str:
    """One file as the hub serves it. Returns its address."""
    address = f"/{repository}/resolve/{revision}/{file}"
    server.files[address] = content
    etag = hashlib.sha256(content).hexdigest() if large else git_hash(content)
    server.headers[address] = {"X-Repo-Commit": revision, "ETag": f'"{etag}"'}
    return address


def test_downloads_from_a_hub(tmp_path):
    large = save({"a": torch.arange(30_000.0)})
    plain = {"name": "n", "licence": "l", "purpose": "p", "size": 10, "revision": COMMIT}

    def model(repository: str, *names: str, **more) -> dict:
        return {**plain, "repository": repository, "files": names, **more}

    both = ("config.json", "model.safetensors")
    with serve() as server:
        publish(server, "some/good", "config.json", b"{}", large=False)
        weights = publish(server, "some/good", "model.safetensors", large, large=True)
        server.cuts[weights] = [40_000] + [0] * 5
        other = publish(server, "some/other", "model.safetensors", large, large=True)
        gated = f"/some/gated/resolve/{COMMIT}/config.json"
        server.status[gated] = 403
        server.headers[gated] = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}
        gone = f"/some/renamed/resolve/{COMMIT}/config.json"
        server.status[gone] = 404
        server.headers[gone] = {"X-Error-Code": "RepoNotFound"}
        absent = f"/some/absent/resolve/{COMMIT}/config.json"
        server.status[absent] = 404
        server.headers[absent] = {"X-Error-Code": "EntryNotFound"}
        asked = [
            model("some/good", *both),  # breaks off
            model("some/good", *both),  # goes on
            model("some/other", both[1], sha256={both[1]: "0" * 64}),
            model("some/gated", "config.json"),
            model("some/renamed", "config.json"),
            model("some/absent", "config.json"),
        ]
        environment = os.environ | {
            "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "no_proxy": "*",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_ETAG_TIMEOUT": "60", "HF_HUB_DOWNLOAD_TIMEOUT": "60",
            "HF_TOKEN": "hf_secret", "PYTHONPATH": str(paths.ROOT),
        }  # fmt: skip
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            input=json.dumps(asked), env=environment, capture_output=True, text=True,
        )  # fmt: skip
        log = [(method, asked) for method, path, asked in server.asked if path == weights and method == "GET"]
        assert (("GET", other, None)) not in server.asked, "a file with another hash is not even begun"
    assert run.returncode == 0, f"{run.returncode}: {run.stderr}"
    lines = run.stdout.splitlines()
    assert "could not be fetched" in lines[0] and "40,000 bytes are kept" in lines[0]
    assert lines[1] == f"ok n: present, revision {COMMIT}"
    assert log[0] == ("GET", None) and log[-1] == ("GET", "bytes=40000-") and len(log) == 7
    for line, told in zip(
        lines[2:],
        [
            "instead of 000000000000..; point HF_ENDPOINT at another mirror",
            f"some/gated: config.json is gated: accept its terms at {server.url}/some/gated",
            "some/renamed does not exist at",
            f"some/absent: config.json does not exist at {server.url} in revision 111111111111",
            f"cache {tmp_path / 'home' / 'hub'}",
        ],
        strict=True,
    ):
        assert told in line
    root = tmp_path / "home" / "hub" / "models--some--good"
    assert (root / "snapshots" / COMMIT / "model.safetensors").read_bytes() == large
    assert not [p for p in root.rglob("*") if p.suffix in (".part", ".incomplete")]


# Whisper, the ears of the paper profile


def whisper(folder: Path) -> Path:
    """A tiny Whisper in the official layout: letters as tokens, one language, weights at random that favour letters."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers import models as bpe
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizerFast,
    )

    letters = {c: k for k, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(bpe.BPE(vocab=letters, merges=[]))
    inner.pre_tokenizer, inner.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    names = "startoftranscript en translate transcribe startoflm startofprev nospeech notimestamps".split()
    end, others = "<|endoftext|>", [f"<|{name}|>" for name in names]
    tokenizer = WhisperTokenizerFast(
        tokenizer_object=inner, additional_special_tokens=others, **dict.fromkeys(
            ("eos_token", "bos_token", "unk_token", "pad_token"), end)
    )  # fmt: skip
    tokenizer.add_tokens([f"<|{k * 0.02:.2f}|>" for k in range(1501)])
    number = {token: tokenizer.convert_tokens_to_ids(token) for token in (end, *others)}
    sizes = {f"{side}_{what}": n for side in ("encoder", "decoder")
             for what, n in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 16))}  # fmt: skip
    config = WhisperConfig(
        vocab_size=len(tokenizer), num_mel_bins=80, d_model=16, max_target_positions=64, **sizes,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), number[end]),
        decoder_start_token_id=number["<|startoftranscript|>"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        model.model.decoder.embed_tokens.weight[: len(letters)] *= 20
        model.model.decoder.embed_positions.weight *= 50  # so that no letter is said again and again
    for part in (model, tokenizer, WhisperFeatureExtractor(feature_size=80)):
        part.save_pretrained(folder)
    path = folder / "generation_config.json"
    told = json.loads(path.read_text()) | {
        "is_multilingual": True, "lang_to_id": {"<|en|>": number["<|en|>"]}, "max_length": 24,
        "task_to_id": {"transcribe": number["<|transcribe|>"], "translate": number["<|translate|>"]},
        "no_timestamps_token_id": number["<|notimestamps|>"], "alignment_heads": [[0, 0]],
    }  # fmt: skip
    told.pop("_from_model_config", None)  # which says that nobody wrote it
    path.write_text(json.dumps(told))
    return folder


def lay_whisper(cache: Path, folder: Path) -> Path:
    """A tiny Whisper in the Hugging Face cache. Returns the folder that it was written to before."""
    repository = PAPER.sources.recognizer
    whisper(folder)
    for file in hub.RECOGNIZER_FILES:
        content = (folder / file).read_bytes() if (folder / file).exists() else b"{}"
        lay(cache, repository, hub.REVISIONS[repository], file, content, large=file.endswith("safetensors"))
    return folder


def test_whisper_hears_in_english_and_greedily(cache, tmp_path):
    """Through the real loader, against the model's own likeliest letters after the prompt of English transcription."""
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizerFast

    folder = lay_whisper(cache, tmp_path / "whisper")
    ears = hub.load_recognizer(PAPER)
    noise = np.random.default_rng(0).normal(0, 0.1, 31 * 24_000).astype(np.float32)
    clips = [noise[:24_000], np.zeros(24_000, np.float32), noise[: 3 * 24_000]]
    heard = ears.transcribe(clips)
    model = WhisperForConditionalGeneration.from_pretrained(folder)
    tokens = WhisperTokenizerFast.from_pretrained(folder)
    prompt = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    for clip, text in zip(clips, heard, strict=True):
        sound = audio.resample(clip, 24_000, 16_000)
        mel = WhisperFeatureExtractor(feature_size=80)(sound, sampling_rate=16_000, return_tensors="pt")
        said = [tokens.convert_tokens_to_ids(token) for token in prompt]
        while len(said) < len(prompt) + 24 and said[-1] != tokens.eos_token_id:
            with torch.no_grad():
                scores = model(mel.input_features, decoder_input_ids=torch.tensor([said])).logits
            said.append(int(scores[0, -1].argmax()))
        assert text == tokens.decode(said, skip_special_tokens=True).strip()
    assert len(set(heard[0])) > 5 and ears.transcribe(clips[:1]) == heard[:1]
    assert isinstance(ears.transcribe([noise])[0], str)  # longer than its half minute
    with pytest.raises(audio.AudioError, match="not finite"):
        ears.transcribe([np.full(24_000, np.nan, np.float32)])


def test_whisper_hears_long_sound_to_its_end_and_alone(cache, tmp_path):
    """Beside short ones, which are heard as they are without it; against the model's own long-form decoding."""
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizerFast

    folder = lay_whisper(cache, tmp_path / "whisper")
    ears = hub.load_recognizer(PAPER)
    noise = np.random.default_rng(0).normal(0, 0.1, 70 * 24_000).astype(np.float32)
    short = [noise[:24_000], noise[: 30 * 24_000], noise[: 3 * 24_000]]
    alone = ears.transcribe(short)
    heard = ears.transcribe([noise, short[0], short[1], noise[: 31 * 24_000], short[2]])
    assert [heard[k] for k in (1, 2, 4)] == alone and all(alone)

    model = WhisperForConditionalGeneration.from_pretrained(folder)
    extract = WhisperFeatureExtractor(feature_size=80)
    for clip, text in ((noise, heard[0]), (noise[: 31 * 24_000], heard[3])):
        features = extract(
            audio.resample(clip, 24_000, 16_000), sampling_rate=16_000, return_tensors="pt",
            truncation=False, padding="longest", return_attention_mask=True,
        )  # fmt: skip
        said = model.generate(**features, language="english", task="transcribe", return_timestamps=True)
        tokens = WhisperTokenizerFast.from_pretrained(folder)
        assert text == tokens.decode(said[0], skip_special_tokens=True).strip()
    assert len(heard[0]) > len(heard[3]) and ears.transcribe([]) == []


def test_whispers_published_size_follows_from_its_class():
    """Its names and shapes, in half precision, fill a file of exactly the published size."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    sides = {f"{side}_{what}": n for side in ("encoder", "decoder")
             for what, n in (("attention_heads", 20), ("ffn_dim", 5120))}  # fmt: skip
    config = WhisperConfig(
        vocab_size=51866, num_mel_bins=128, d_model=1280, encoder_layers=32, decoder_layers=4, **sides
    )
    with torch.device("meta"):
        own = WhisperForConditionalGeneration(config).state_dict()
    own.pop(hub.WHISPER_TIED)
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(own):
        size = 2 * own[name].numel()
        header[name] = {"dtype": "F16", "shape": list(own[name].shape), "data_offsets": [at, at + size]}
        at += size
    text = len(json.dumps(header, separators=(",", ":")))
    [model] = [m for m in models.MODELS if m.part == "recognizer"]
    assert 8 + text + -text % 8 + at == model.sizes["model.safetensors"]


@pytest.fixture(scope="module")
def whisper_folder(tmp_path_factory) -> Path:
    return whisper(tmp_path_factory.mktemp("whisper"))


def without(entry: str):
    def take(path: Path) -> None:
        state = load_file(path)
        state.pop(entry)
        path.write_bytes(save(state, {"format": "pt"}))

    return take


# Whisper's files: what is done to one, and the complaint.
BAD_WHISPERS = {
    "truncated weights": ("model.safetensors", lambda p: p.write_bytes(p.read_bytes()[:-500]), "safetensors"),
    "empty weights": ("model.safetensors", lambda p: p.write_bytes(b""), "is not a whole safetensors file"),
    "a lost entry": ("model.safetensors", without("model.encoder.conv1.bias"), "such as model.encoder.conv1"),
    "no configuration": ("config.json", Path.unlink, "is not in the Hugging Face cache"),
    "half a configuration": ("config.json", lambda p: p.write_text('{"model_type": '), "is not JSON"),
    "half of another": ("generation_config.json", lambda p: p.write_text("{"), "is not JSON"),
    "a list": ("generation_config.json", lambda p: p.write_text("[]"), "is not an object of JSON"),
    "no text": ("tokenizer.json", lambda p: p.write_bytes(b"\xff\xfe"), "is not JSON"),
}


@pytest.mark.parametrize("case", BAD_WHISPERS)
def test_a_damaged_whisper_is_named_with_the_remedy(cache, whisper_folder, case):
    """In a cache without links, where no name tells the hash."""
    repository = PAPER.sources.recognizer
    folder = cache / f"models--{repository.replace('/', '--')}" / "snapshots" / hub.REVISIONS[repository]
    shutil.copytree(whisper_folder, folder)
    for file in hub.RECOGNIZER_FILES:
        if not (folder / file).exists():
            (folder / file).write_text("{}")
    name, damage, complaint = BAD_WHISPERS[case]
    damage(folder / name)
    with pytest.raises(WeightsError) as caught:
        hub.load_recognizer(PAPER)
    message = str(caught.value)
    assert name in message and complaint in message and "\n" not in message
    assert "`pvlib models download`" in message
    [model] = [m for m in models.MODELS if m.part == "recognizer"]
    told = models.check(replace(model, sizes={}, sha256={}))  # a lost entry shows in the published size
    assert told.state == {"no configuration": "missing", "a lost entry": "present"}.get(case, "damaged")


def test_a_whisper_that_does_not_load_is_one_line(cache, tmp_path):
    folder = lay_whisper(cache, tmp_path / "whisper")
    repository = PAPER.sources.recognizer
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "murmur"}
    lay(cache, repository, hub.REVISIONS[repository], "config.json", json.dumps(config).encode(), large=False)
    with pytest.raises(
        WeightsError, match=r"does not load as Whisper .*murmur.*`pvlib models down"
    ) as caught:
        hub.load_recognizer(PAPER)
    assert "\n" not in str(caught.value) and hub.REVISIONS[repository] in str(caught.value)


def test_one_whisper_serves_all_that_hold_it(cache, tmp_path, monkeypatch):
    from pvlib.metrics.judges import Judges

    lay_whisper(cache, tmp_path / "whisper")
    first = hub.load_recognizer(PAPER)
    assert hub.load_recognizer(PAPER, torch.device("cpu")) is first
    system = systems.create("f5-official", PAPER, "cpu")
    assert system._model("recognizer") is first
    monkeypatch.setattr(hub, "load_speaker_encoder", lambda *_: None)
    judges = Judges(PAPER, "cpu")
    judges._load()
    assert judges._recognizer is first
    gone = weakref.ref(first)
    del first, system, judges
    gc.collect()
    assert gone() is None, "nobody holds it"


def test_a_whisper_without_its_weights_is_named(cache, tmp_path):
    with pytest.raises(
        hub.WeightsError, match=r"whisper-large-v3-turbo: config.json is not in the Hugging Face"
    ):
        hub.load_recognizer(PAPER)
