"""The mini world keeps its promises: strata, disjoint people and sentences, known truth."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pvlib import paths
from pvlib.world import build, corpus, rooms, voices, words


def test_lexicon_and_lengths():
    assert len(words.lexicon()) >= 1500
    grammar = words.Grammar(np.random.default_rng(0))
    known = set(words.lexicon())
    for length in [1, 2, 3, 4, 5, 8, 17, 40, 70]:
        for _ in range(5):
            spoken = [w.strip(".,?!") for w in grammar.sentence(length).split()]
            assert len(spoken) == length
            assert set(spoken) <= known


def test_test_texts_have_the_strata_of_the_paper():
    lengths = [len(task.text.split()) for task in build.tasks("test")]
    strata = Counter("ultra" if n <= 4 else "short" if n <= 8 else "long" for n in lengths)
    assert strata == {"ultra": 22, "short": 31, "long": 147}
    assert max(lengths) == 70


def test_people_and_sentences_are_disjoint():
    people = {split: {s.name for s in build.speakers(split)} for split in ("train", "dev", "test")}
    assert {k: len(v) for k, v in people.items()} == {"train": 600, "dev": 32, "test": 40}
    assert not people["train"] & people["test"] and not people["dev"] & people["test"]
    trained = {s.variant for s in build.speakers("train")}
    assert {s.variant for s in build.speakers("test")} - trained  # some base voices only in test
    train_texts = {task.text for task in build.tasks("train")}
    assert not train_texts & {task.text for task in build.tasks("test")}


def test_more_voices_than_in_the_rest_of_training_and_none_that_is_held_out():
    plan = build.tasks(build.VOICES)
    bases = {(accent, variant) for accent in voices.ACCENTS for variant in voices.TRAIN_VARIANTS}
    assert {task.base_voice for task in plan} == {f"{accent}+{variant}" for accent, variant in bases}
    names = [take.speaker.name for task in plan for take in task.takes]
    assert len(set(names)) == len(names) == 2 * len(plan)
    said = {build.bare(task.text) for task in plan}
    for split in ("dev", "test", "test-enrol", "test-scrambled", *build.ULTRA_SHORT):
        assert not said & {build.bare(task.text) for task in build.tasks(split)}, split
    places = [take.place for task in plan for take in task.takes]
    assert len(set(places)) == len(places) and min(places) >= rooms.TRAIN_PLACES + rooms.TEST_PLACES


def test_test_places_are_unheard():
    assert all(take.place < rooms.TRAIN_PLACES for task in build.tasks("train") for take in task.takes)
    assert all(take.place >= rooms.TRAIN_PLACES for task in build.tasks("test") for take in task.takes)


def test_noise_is_at_the_ratio_it_says():
    rng = np.random.default_rng(3)
    silent, loud = np.zeros(24_000, np.float32), rng.standard_normal(24_000).astype(np.float32) * 0.05
    wave = np.concatenate([silent, loud, silent])
    recorded, snr = rooms.place_in(wave, "car", 1, 42, rng)
    noise = np.mean(recorded[:20_000].astype(float) ** 2)
    speech = np.mean(recorded.astype(float) ** 2) - noise
    assert 10 * np.log10(speech / noise) == pytest.approx(snr, abs=1.0)


def test_emotions_move_the_controls_in_opposite_ways():
    happy, sad = voices.emotion_prosody("happy", 1), voices.emotion_prosody("sad", 1)
    assert happy.pitch > 1 > sad.pitch and happy.rate > 1 > sad.rate
    assert voices.emotion_prosody("angry", 0) == voices.Prosody()


def test_the_same_task_sounds_the_same_and_words_are_where_they_say():
    pytest.importorskip("pyworld")
    task = build.tasks("test")[3]
    other = build.tasks("test")[4]
    ((row, first),), _ = build.performed([task, other], workers=1)
    _, ((_, again),) = build.performed([other, task], workers=2)
    assert np.array_equal(first, again)
    spoken = [w for w, _, _ in row["word_times"]]
    assert spoken == [w.strip(".,?!") for w in task.text.split()]
    starts = [s for _, s, _ in row["word_times"]]
    assert starts == sorted(starts) and row["word_times"][-1][2] <= len(first) / 24_000
    wave = first.astype(float) / 32768
    start, end = row["word_times"][0][1], row["word_times"][-1][2]
    inside = np.sqrt(np.mean(wave[int(start * 24_000) : int(end * 24_000)] ** 2))
    before = np.sqrt(np.mean(wave[: int(0.04 * 24_000)] ** 2))
    assert inside > 3 * before


def test_a_corpus_cut_short_is_named(tmp_path):
    with pytest.raises(corpus.CorpusError, match="pvlib world build"):
        corpus.Corpus(tmp_path, "train")
    row = {"utterance": "a", "offset": 0, "samples": 100, "text": "a", "word_times": []}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "train.pcm").write_bytes(b"\0" * 50)
    with pytest.raises(corpus.CorpusError, match="cut short"):
        corpus.Corpus(tmp_path, "train")
    (tmp_path / "train.pcm").write_bytes(b"\0" * 200)
    assert len(corpus.Corpus(tmp_path, "train")) == 1
    (tmp_path / "train.jsonl").write_text(2 * (json.dumps(row) + "\n"))  # twice the same utterance
    with pytest.raises(corpus.CorpusError, match="cut short"):
        corpus.Corpus(tmp_path, "train")


@pytest.mark.parametrize("index", ['{"utterance": "a", "off', "", '{"utterance": "a"}\n'])
def test_a_damaged_index_is_named(tmp_path, index):
    (tmp_path / "train.jsonl").write_text(index)
    (tmp_path / "train.pcm").write_bytes(b"")
    with pytest.raises(corpus.CorpusError, match="train.jsonl is damaged .*--force"):
        corpus.Corpus(tmp_path, "train")


def test_an_interrupted_build_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    def perform(todo, workers):
        for task in todo:
            takes = [
                {"utterance": t.utterance, "speaker": t.speaker.name, "text": task.text} for t in task.takes
            ]
            wave = np.full(10 + task.number, task.number, np.int16)
            yield [({**take, "samples": len(wave), "word_times": []}, wave) for take in takes]

    def interrupted(todo, workers):
        for number, made in enumerate(perform(todo, workers)):
            if number == 5:
                raise KeyboardInterrupt
            yield made

    plan = build.tasks("train")[:9]
    monkeypatch.setattr(build, "tasks", lambda split, seed: plan)
    results, left = [], []
    where = tmp_path / "index alone"
    monkeypatch.setattr(paths, "WORLD", where)
    monkeypatch.setattr(build, "performed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build.build_split("train")
    (where / "train.pcm.part").unlink()
    monkeypatch.setattr(build, "performed", perform)
    build.build_split("train")  # begins again, and says nothing twice
    assert corpus.Corpus(where, "train").table["utterance"].is_unique

    def counted(todo, workers):
        left.append(len(todo))
        return perform(todo, workers)

    for folder in ("whole", "broken"):
        monkeypatch.setattr(paths, "WORLD", tmp_path / folder)
        if folder == "broken":
            monkeypatch.setattr(build, "performed", interrupted)
            with pytest.raises(KeyboardInterrupt):
                build.build_split("train")
            assert not (paths.WORLD / "train.pcm").exists()
            with (paths.WORLD / "train.pcm.part").open("ab") as file:
                file.write(b"a torn utterance")
            with (paths.WORLD / "train.jsonl.part").open("a") as file:
                file.write('{"utterance": "to')
            monkeypatch.setattr(build, "performed", counted)
            build.build_split("train")
            assert left == [4]
        else:
            monkeypatch.setattr(build, "performed", perform)
            build.build_split("train")
        results.append([(paths.WORLD / name).read_bytes() for name in ("train.pcm", "train.jsonl")])
    assert results[0] == results[1]
    monkeypatch.setattr(paths, "WORLD", tmp_path / "two at once")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(build.build_split, ["train", "train"]))
    assert (paths.WORLD / "train.pcm").read_bytes() == results[0][0] and len(left) == 2
    assert len(corpus.Corpus(tmp_path / "broken", "train")) == sum(len(task.takes) for task in plan)
