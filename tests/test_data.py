"""The paper profile's test set: a broken download goes on, an archive stays in its folder, the draw is fair."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from serving import serve

from pvlib import audio, cli, fetch, hub, paths
from pvlib.config import PAPER
from pvlib.fetch import FetchError
from pvlib.hub import WeightsError
from pvlib.study import libritts, manifest
from pvlib.study.libritts import DataError

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WHOLE = {"sha256": SHA256, "size": len(CONTENT)}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serve() as running:
        running.files["/data.bin"] = CONTENT
        yield running


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Everything that `prepare` writes goes to tmp_path."""
    for name, where in {"BUILD": "build", "DATA": "data", "MANIFESTS": "data/manifests"}.items():
        monkeypatch.setattr(paths, name, tmp_path / where)
    return tmp_path


def ranges(server) -> list[str | None]:
    return [asked for method, _, asked in server.asked if method == "GET"]


# Fetching


def test_a_download_appears_whole_and_is_not_repeated(server, tmp_path):
    path = tmp_path / "new" / "data.bin"
    assert fetch.fetch(f"{server.url}/data.bin", path, **WHOLE) == path
    assert path.read_bytes() == CONTENT and kept(path.parent) == ["data.bin"]
    fetch.fetch(f"{server.url}/data.bin", path, **WHOLE)
    assert ranges(server) == [None]
    path.write_bytes(CONTENT[:-1] + b"?")
    assert fetch.fetch(f"{server.url}/data.bin", path, **WHOLE).read_bytes() == CONTENT


def kept(place):
    """What lies there beside the lock under which it was fetched."""
    return [path.name for path in place.iterdir() if path.suffix != ".lock"]


def test_of_two_at_once_one_fetches(server, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        calls = [
            pool.submit(fetch.fetch, f"{server.url}/data.bin", tmp_path / "data.bin", **WHOLE) for _ in "12"
        ]
    assert [call.result().read_bytes() for call in calls] == [CONTENT] * 2
    assert ranges(server) == [None] and kept(tmp_path) == ["data.bin"]


def test_a_connection_that_breaks_off_is_taken_up_again(server, tmp_path):
    server.cuts["/data.bin"] = [100_000, 50_000, 0, 0]
    path = fetch.fetch(f"{server.url}/data.bin", tmp_path / "data.bin", **WHOLE)
    assert path.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=100000-", *["bytes=150000-"] * 3]


def test_a_later_call_asks_for_the_rest_only(server, tmp_path):
    path = tmp_path / "data.bin"
    server.cuts["/data.bin"] = [100_000, 0]
    with pytest.raises(FetchError, match=r"100,000 bytes are kept, and the same command goes on from there"):
        fetch.fetch(f"{server.url}/data.bin", path, **WHOLE, attempts=1)
    assert not path.exists() and (tmp_path / "data.bin.part").read_bytes() == CONTENT[:100_000]
    server.cuts.clear()
    fetch.fetch(f"{server.url}/data.bin", path, **WHOLE)
    assert path.read_bytes() == CONTENT and ranges(server)[-1] == "bytes=100000-"


def test_without_a_known_size_the_end_is_the_servers(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    path = fetch.fetch(f"{server.url}/data.bin", tmp_path / "data.bin", sha256=SHA256)
    assert path.read_bytes() == CONTENT and ranges(server) == ["bytes=300000-"]


def test_a_server_without_range_starts_again(server, tmp_path):
    server.ranges = False
    server.cuts["/data.bin"] = [100_000]
    assert fetch.fetch(f"{server.url}/data.bin", tmp_path / "data.bin", **WHOLE).read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=100000-"]


def test_a_server_that_starts_again_and_always_breaks_off_is_given_up(server, tmp_path):
    server.ranges = False
    server.cuts["/data.bin"] = [100_000] * 20
    with pytest.raises(FetchError, match="run the command again"):
        fetch.fetch(f"{server.url}/data.bin", tmp_path / "data.bin", **WHOLE)
    assert len(ranges(server)) < 20


@pytest.mark.parametrize(
    ("known", "told"),
    [
        ({"sha256": "0" * 64}, "does not match its SHA-256; nothing was kept"),
        ({"size": 300_001}, "now has 300,000 bytes instead of 300,001"),
    ],
)
def test_another_file_is_refused_and_nothing_is_kept(server, tmp_path, known, told):
    with pytest.raises(FetchError, match=told):
        fetch.fetch(f"{server.url}/data.bin", tmp_path / "data.bin", **(WHOLE | known))
    assert kept(tmp_path) == []


def test_a_damaged_part_is_noticed_at_the_end(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(b"?" * 1000)
    with pytest.raises(FetchError, match="does not match its SHA-256"):
        fetch.fetch(f"{server.url}/data.bin", tmp_path / "data.bin", **WHOLE)
    assert kept(tmp_path) == []


@pytest.mark.parametrize("busy", [429, 503])
def test_a_busy_server_is_asked_again_after_a_while(server, tmp_path, monkeypatch, busy):
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            del server.status["/data.bin"]

    monkeypatch.setattr(fetch.time, "sleep", sleep)
    server.status["/data.bin"] = busy
    path = fetch.fetch(f"{server.url}/data.bin", tmp_path / "data.bin", **WHOLE)
    assert path.stat().st_size == WHOLE["size"] and pauses == [1, 2]
    server.status["/data.bin"] = busy
    with pytest.raises(
        FetchError, match=f"answers {busy}: its server is busy or broken; run the command again"
    ):
        fetch.fetch(f"{server.url}/data.bin", tmp_path / "other")
    assert pauses[2:] == [1, 2, 4, 8]


def test_a_file_that_is_not_there_and_a_machine_that_is_not(server, tmp_path):
    with pytest.raises(FetchError, match=r"/none answers 404: moved, or not public"):
        fetch.fetch(f"{server.url}/none?token=secret", tmp_path / "a")
    server.status["/data.bin"] = 403
    with pytest.raises(FetchError, match="answers 403: moved, or not public"):
        fetch.fetch(f"{server.url}/data.bin", tmp_path / "a")
    with pytest.raises(FetchError, match=r"could not be fetched \(.+\); check the network") as caught:
        fetch.fetch("http://127.0.0.1:9/a?token=secret", tmp_path / "a")
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
    assert kept(tmp_path) == []


def test_a_full_disk_is_told_before_and_during(server, tmp_path, monkeypatch):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(FetchError, match=r"cannot write .*data\.bin .*space"):
            fetch.fetch(f"{server.url}/data.bin", tmp_path / "data.bin", **WHOLE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "data.bin").exists()
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10_000}))
    with pytest.raises(FetchError, match=r"GB are needed in .* PVLIB_BUILD"):
        fetch.check_space((tmp_path / "not" / "yet", 20_000))
    fetch.check_space((tmp_path / "models", 6_000))
    with pytest.raises(FetchError, match=r"0.00 GB are needed in .*models and .*data and"):  # on one disk
        (tmp_path / "models").mkdir()
        (tmp_path / "data").mkdir()
        fetch.check_space((tmp_path / "models", 6_000), (tmp_path / "data", 6_000))


def test_the_archive_is_the_one_torchaudio_knows():
    from torchaudio.datasets import libritts as official

    assert official._CHECKSUMS[libritts.URL.replace("https", "http")] == libritts.SHA256


# A small LibriTTS in the official layout

WORDS = {"ultra-short": 2, "short": 6, "long": 14}  # and the speaker's number
EACH = {"ultra-short": 2, "short": 2, "long": 6}  # per speaker
SPEAKERS = ("84", "174", "251", "8842")


def build_tree(root) -> dict[str, np.ndarray]:
    """LibriTTS/dev-clean under root: 4 speakers with 10 utterances, and one that is too short. {name: samples}."""
    rng = np.random.default_rng(1)
    waves = {}
    for speaker in SPEAKERS:
        folder = root / "LibriTTS" / "dev-clean" / speaker / "121123"
        folder.mkdir(parents=True)
        lengths = [b for b, count in EACH.items() for _ in range(count)] + ["long"] * (speaker == "84")
        for index, bucket in enumerate(lengths):
            name = f"{speaker}_121123_{index:06d}_000000"
            seconds = 0.9 if index == 10 else 2.0 + 0.01 * index
            waves[name] = (3000 * rng.normal(size=int(24_000 * seconds))).astype(np.int16)
            soundfile.write(folder / f"{name}.wav", waves[name], 24_000)
            text = " ".join([f"Word{index}"] * WORDS[bucket]) + f" {speaker}."
            (folder / f"{name}.normalized.txt").write_text(text + "\n")
            (folder / f"{name}.original.txt").write_text(text)
    return waves


def archive_of(root) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(root / "LibriTTS", "LibriTTS")
    return buffer.getvalue()


class Ears:
    """An encoder that knows whom it hears: the pitch of its answer is the length of the sound."""

    def __init__(self, width: int = 192):
        self.width, self.heard = width, []

    def embed(self, waves):
        self.heard.append([len(wave) for wave in waves])
        return torch.nn.functional.normalize(torch.ones(len(waves), self.width), dim=-1)


@pytest.fixture
def encoders(monkeypatch):
    from pvlib import speaker

    monkeypatch.setattr(hub, "load_speaker_encoder", lambda profile: Ears())
    monkeypatch.setattr(hub, "fingerprint", lambda name, profile: "repository@commit")
    monkeypatch.setattr(speaker, "GE2E", lambda: Ears(256))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("libritts")
    waves = build_tree(root)
    return root, waves, archive_of(root)


def test_the_official_loader_finds_the_same_utterances(corpus):
    from torchaudio.datasets import LIBRITTS

    root, waves, _ = corpus
    official = LIBRITTS(root, "dev-clean")
    found = libritts.utterances(root / libritts.SPLIT)
    assert set(official._walker) == set(waves) and len(official) == 41
    assert set(found["utterance"]) == set(waves) - {"84_121123_000010_000000"}, "the 0.9 s one is left out"
    row = found.set_index("utterance").loc["174_121123_000001_000000"]
    assert (row.speaker, row.text, row.words, row.bucket, row.seconds) == (
        "174", "Word1 Word1 174.", 3, "ultra-short", 2.01,
    )  # fmt: skip


def test_a_text_of_which_no_word_is_left_to_count_is_not_drawn(tmp_path):
    build_tree(tmp_path)
    folder = tmp_path / libritts.SPLIT / "84" / "121123"
    (folder / "84_121123_000000_000000.normalized.txt").write_text("Hmm, um!\n")
    found = set(libritts.utterances(tmp_path / libritts.SPLIT)["utterance"])
    assert "84_121123_000000_000000" not in found and "84_121123_000001_000000" in found


def test_a_tree_that_is_not_the_whole_is_used_and_told(corpus, places, encoders):
    root, *_ = corpus
    libritts.folder().mkdir(parents=True)
    (libritts.folder() / "LibriTTS").symlink_to(root / "LibriTTS")
    with pytest.warns(libritts.LibriTTSWarning, match="holds 41 recordings instead of 5,736"):
        assert len(libritts.prepare(samples=4, skip_download=True).table) == 4


def test_a_wrong_size_is_told_before_anything_is_fetched(places, server, monkeypatch):
    monkeypatch.setattr(libritts, "URL", f"{server.url}/60/dev-clean.tar.gz")
    with pytest.raises(DataError, match="choose 1 to 200"):
        libritts.prepare(samples=500)
    assert not ranges(server)


def test_what_a_killed_process_left_half_unpacked_goes_after_a_day(corpus, places):
    libritts.folder().mkdir(parents=True)
    archive = libritts.folder() / "dev-clean.tar.gz"
    archive.write_bytes(corpus[2])
    old, new = (libritts.folder() / f".unpacking.{name}" for name in ("1", "2"))
    for left in (old, new):
        (left / "LibriTTS").mkdir(parents=True)
    os.utime(old, (0, 0))
    libritts.unpack(archive, libritts.folder())
    assert not old.exists() and new.exists()


def test_prepare_downloads_unpacks_and_writes_what_the_study_reads(
    corpus, places, server, encoders, monkeypatch
):
    _, waves, archive = corpus
    server.files["/60/dev-clean.tar.gz"] = archive
    server.cuts["/60/dev-clean.tar.gz"] = [len(archive) // 2]
    monkeypatch.setattr(libritts, "URL", f"{server.url}/60/dev-clean.tar.gz")
    monkeypatch.setattr(libritts, "SIZE", len(archive))
    monkeypatch.setattr(libritts, "SHA256", hashlib.sha256(archive).hexdigest())
    monkeypatch.setattr(libritts, "RECORDINGS", len(waves))
    made = libritts.prepare(samples=20)
    assert ranges(server) == [None, f"bytes={len(archive) // 2}-"]

    read = manifest.read(PAPER.manifest)
    pd.testing.assert_frame_equal(read.table, made.table)
    mini = pd.read_csv(paths.ROOT / "data" / "manifests" / "mini-test.csv", nrows=1)
    assert list(read.table.columns) == list(mini.columns)
    assert read.table["bucket"].value_counts().to_dict() == {"ultra-short": 2, "short": 3, "long": 15}
    assert read.table["speaker"].value_counts().tolist() == [5, 5, 5, 5]
    for request in read.requests():
        assert np.allclose(request.clip, waves[request.utterance][:24_000] / 32768, atol=1e-4)
        assert np.array_equal(soundfile.read(request.audio_path, dtype="int16")[0], waves[request.utterance])
        assert request.impostor_audio and request.impostor_audio.is_file()
    assert set(read.enrolment) == set(SPEAKERS) and read.ecapa_sha256 == "repository@commit"
    assert {k: v.shape for k, v in read.enrolment["84"].items()} == {"ecapa": (192,), "ge2e": (256,)}
    assert (paths.DATA / "audio" / "libritts" / ".gitignore").read_text() == "*\n"
    assert not [p for p in places.rglob("*") if "part" in p.name or "unpacking" in p.name]

    before = paths.MANIFESTS.joinpath("libritts-test.csv").read_bytes()
    libritts.prepare(samples=20, skip_download=True)
    assert paths.MANIFESTS.joinpath("libritts-test.csv").read_bytes() == before and len(ranges(server)) == 2


def test_enrolment_is_speech_that_is_not_in_the_test_set(corpus, places):
    root, waves, _ = corpus
    tree = root / libritts.SPLIT
    table = libritts.utterances(tree)
    chosen = libritts.select(table, 20, 42)
    ears = Ears()
    paths.MANIFESTS.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "fingerprint", lambda *_: "x")
        libritts.enrol(table, chosen, tree, encoders={"ecapa": ears, "ge2e": ears})
    tested = set(chosen["utterance"])
    for speaker, heard in zip(sorted(SPEAKERS), ears.heard[::2], strict=True):
        own = [
            n for n in waves if n.startswith(f"{speaker}_") and n not in tested and len(waves[n]) >= 48_000
        ]
        assert sorted(heard) == sorted(len(waves[name]) for name in own) and len(own) == 5
    with pytest.raises(DataError, match="has no other speech"):
        libritts.enrol(chosen, chosen, tree, encoders={"ecapa": ears})


def test_without_the_encoders_weights_the_set_is_made_and_the_lack_is_told(corpus, places, monkeypatch):
    def none(profile):
        raise WeightsError("no weights here")

    monkeypatch.setattr(hub, "load_speaker_encoder", none)
    root, *_ = corpus
    libritts.folder().mkdir(parents=True)
    (libritts.folder() / "LibriTTS").symlink_to(root / "LibriTTS")
    monkeypatch.setattr(libritts, "RECORDINGS", len(corpus[1]))
    with pytest.warns(
        libritts.LibriTTSWarning, match=r"no weights here; then run `pvlib data prepare --samples 4 --skip"
    ):
        made = libritts.prepare(samples=4, skip_download=True)
    assert len(made.table) == 4 and not made.enrolment


# The draw


def big_table() -> pd.DataFrame:
    rows = [
        (f"{s}_{k}", str(s), "w " * words, words, manifest.bucket_of(words), 3.0)
        for s in range(40)
        for k, words in enumerate([2] * 3 + [6] * 5 + [20] * 22)
    ]
    return pd.DataFrame(rows, columns=["utterance", "speaker", "text", "words", "bucket", "seconds"])


def test_the_draw_has_the_papers_lengths_and_speaks_evenly():
    table = big_table()
    drawn = libritts.select(table, 200, 42)
    assert drawn["bucket"].value_counts().to_dict() == {"ultra-short": 22, "short": 31, "long": 147}
    assert set(drawn["speaker"].value_counts()) == {5}
    pd.testing.assert_frame_equal(drawn, libritts.select(table, 200, 42))
    assert set(drawn["utterance"]) != set(libritts.select(table, 200, 43)["utterance"])
    smaller = libritts.select(table, 20, 42)
    assert set(smaller["utterance"]) < set(drawn["utterance"])
    assert smaller["bucket"].value_counts().to_dict() == {"ultra-short": 2, "short": 3, "long": 15}
    shuffled = table.sample(frac=1, random_state=0).reset_index(drop=True)
    assert set(libritts.select(shuffled, 200, 42)["utterance"]) == set(drawn["utterance"])


@pytest.mark.parametrize("samples", [0, 201])
def test_a_set_of_another_size_is_refused(samples):
    with pytest.raises(DataError, match="choose 1 to 200"):
        libritts.select(big_table(), samples, 42)


def test_a_corpus_with_too_few_short_texts_is_refused():
    table = big_table()
    with pytest.raises(DataError, match="31 short texts are needed"):
        libritts.select(table[table["bucket"] != "short"], 200, 42)


# Bad archives and trees


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_an_archive_that_breaks_off_leaves_nothing(corpus, tmp_path, share):
    archive = tmp_path / "dev-clean.tar.gz"
    archive.write_bytes(corpus[2][: int(share * len(corpus[2]))])
    with pytest.raises(DataError, match=r"breaks off or is no archive .*delete it and run") as caught:
        libritts.unpack(archive, tmp_path / "into")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("into/*")) and not list(tmp_path.glob("into/.*"))


def member(name: str, **fields) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("LibriTTS/../../../evil"),
        member("../evil"),
        member("LibriTTS/dev-clean/link", type=tarfile.SYMTYPE, linkname="/etc"),
        member("LibriTTS/dev-clean/hard", type=tarfile.LNKTYPE, linkname="../../../evil"),
        member("LibriTTS/dev-clean/pipe", type=tarfile.FIFOTYPE),
    ],
    ids=lambda bad: bad.name,
)
def test_a_hostile_archive_cannot_leave_its_folder(tmp_path, bad):
    into = tmp_path / "a" / "b" / "into"
    archive = tmp_path / "dev-clean.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        good = member("LibriTTS/dev-clean/84/1/84_1_0_0.wav", size=3)
        tar.addfile(good, io.BytesIO(b"abc"))
        bad.size = 0
        tar.addfile(bad, io.BytesIO(b""))
    with pytest.raises(DataError, match="do not use it"):
        libritts.unpack(archive, into)
    assert [p for p in tmp_path.rglob("*") if not p.is_dir()] == [archive]


def test_an_absolute_name_lands_inside(tmp_path):
    outside = tmp_path / "evil"
    archive = tmp_path / "dev-clean.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(member(str(outside), size=3), io.BytesIO(b"abc"))
    with pytest.raises(DataError, match="holds no LibriTTS/dev-clean"):
        libritts.unpack(archive, tmp_path / "into")
    assert not outside.exists()


def test_what_lies_there_is_checked_too(corpus, places, capsys):
    assert cli.main(["data", "prepare", "--skip-download"]) == 2
    assert "leave out --skip-download" in capsys.readouterr().err
    libritts.folder().mkdir(parents=True)
    (libritts.folder() / "dev-clean.tar.gz").write_bytes(corpus[2])
    with pytest.raises(DataError, match=r"bytes instead of 1,291,469,655; delete it"):
        libritts.corpus(skip_download=True)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda wav: wav.with_suffix(".normalized.txt").unlink(), "cannot be read"),
        (lambda wav: wav.write_bytes(b"no sound"), "cannot be read"),
        (lambda wav: soundfile.write(wav, np.zeros(48_000), 16_000), "has 16000 Hz"),
        (lambda wav: [each.unlink() for each in wav.parent.iterdir()], "holds no utterances"),
    ],
)
def test_a_tree_with_holes_is_refused(tmp_path, damage, told):
    folder = tmp_path / "84" / "1"
    folder.mkdir(parents=True)
    soundfile.write(folder / "84_1_0_0.wav", 0.1 * np.ones(48_000), audio.SAMPLE_RATE)
    (folder / "84_1_0_0.normalized.txt").write_text("Hello.")
    assert len(libritts.utterances(tmp_path)) == 1
    damage(folder / "84_1_0_0.wav")
    with pytest.raises(DataError, match=told):
        libritts.utterances(tmp_path)


def test_the_set_is_read_under_its_profiles_name(corpus, places):
    tree = corpus[0] / libritts.SPLIT
    chosen = libritts.select(libritts.utterances(tree), 3, 42)
    made = libritts.write(chosen, tree, replace(PAPER, manifest="other-test"))
    assert made.name == "other-test" and len(made.sample(2)) == 2
