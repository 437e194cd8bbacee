"""Build the mini world from one seed: sentences, speakers, rooms, then sound, split by split."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock
from tqdm.auto import tqdm

from pvlib import paths
from pvlib.audio import SAMPLE_RATE
from pvlib.config import EMOTIONS, TRAITS
from pvlib.world import engine, voices
from pvlib.world.corpus import CorpusError, open_split
from pvlib.world.rooms import ROOMS, SHARES, TEST_PLACES, TRAIN_PLACES, place_in
from pvlib.world.voices import Speaker, draw_speaker
from pvlib.world.words import Grammar

SEED = 42
PATIENCE = 600.0  # seconds for one utterance of whatever length, many times what it takes
TRAIN_SPEAKERS, DEV_SPEAKERS, TEST_SPEAKERS = 600, 32, 40
TRAIN_SENTENCES, VOICES_PER_SENTENCE = 5200, 2
SCRAMBLED_SHARE = (
    0.3  # of training sentences: words in no order, so that no model learns the grammar by heart
)
DEV_UTTERANCES = 8  # per speaker
ENROL_UTTERANCES = 6  # per test speaker: "the speaker's other speech"
SCRAMBLED_UTTERANCES = 60
ULTRA_SHORT = {"test-short": 200, "dev-short": 128}  # as many of one word as of two, three and four
WORDS_PER_MINUTE = 140  # espeak-ng speaks faster than it says: about 15 characters a second
LEAD_SECONDS, TAIL_SECONDS = 0.06, 0.12  # silence kept around the words
HELD_OUT = ("dev", "test", "test-enrol", "test-scrambled")  # training says none of their sentences
VOICES = "train-voices"  # more training speech for who has to understand any voice: each base voice, each speaker new
VOICES_SENTENCES = 3800
OWN_PLACES = 1000  # the first of those that are heard once only
SPLITS = (*HELD_OUT, "train", *ULTRA_SHORT, VOICES)  # the place of a split is part of its seed: add behind

# words per test text: 22 of at most 4, 31 of 5 to 8, 147 longer (the strata of the paper's 200 utterances)
TEST_LENGTHS = (
    [1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4]
    + [5] * 7 + [6] * 8 + [7] * 8 + [8] * 8
    + [n for n, count in {9: 10, 10: 10, 11: 9, 12: 9, 13: 9, 14: 8, 15: 8, 16: 8, 17: 7, 18: 7, 19: 6, 20: 6, 22: 8,
                          24: 7, 26: 6, 28: 5, 30: 5, 33: 4, 36: 4, 40: 3, 44: 2, 48: 2, 55: 2, 62: 1, 70: 1}.items()
       for _ in range(count)]
)  # fmt: skip


@dataclass(frozen=True)
class Take:
    """One utterance to make: who says it, where, and how."""

    utterance: str
    speaker: Speaker
    room: str
    place: int
    emotion: str
    strength: float
    traits: tuple[float, ...]


@dataclass(frozen=True)
class Task:
    """A sentence on one base voice, with the takes that share its analysis."""

    seed: int
    number: int
    text: str
    base_voice: str
    words_per_minute: int
    takes: tuple[Take, ...]


def speakers(split: str, seed: int = SEED) -> list[Speaker]:
    """The people of a split. Some of dev and half of test speak on base voices that training never has."""
    kind = split.partition("-")[0]
    count = {"train": TRAIN_SPEAKERS, "dev": DEV_SPEAKERS, "test": TEST_SPEAKERS}[kind]
    rng = np.random.default_rng([seed, {"train": 1, "dev": 2, "test": 3}[kind]])
    people = []
    for i in range(count):
        new = kind != "train" and i % 2 == 0
        variants = voices.HELD_OUT_VARIANTS if new else voices.TRAIN_VARIANTS
        # training speakers come in groups on one base voice, so that they can share an analysis
        group = i // 12 if kind == "train" else i
        base_rng = np.random.default_rng([seed, 9, group]) if kind == "train" else rng
        accent = voices.ACCENTS[int(base_rng.integers(len(voices.ACCENTS)))]
        variant = (
            variants[group % len(variants)] if kind == "train" else variants[int(rng.integers(len(variants)))]
        )
        people.append(draw_speaker(f"{kind}-{i:03d}", (accent, variant), rng))
    return people


def _place(room: str, split: str, rng: np.random.Generator) -> int:
    if split.startswith("test"):
        return TRAIN_PLACES + int(rng.integers(TEST_PLACES))
    return int(rng.integers(TRAIN_PLACES))


def _take(name: str, speaker: Speaker, split: str, rng: np.random.Generator, room: str | None = None) -> Take:
    room = room or str(rng.choice(list(SHARES), p=list(SHARES.values())))
    emotion, strength, traits = "neutral", 0.0, (0.0,) * len(TRAITS)
    if split in ("train", "dev"):
        if rng.random() < 0.35:
            emotion = EMOTIONS[1 + int(rng.integers(3))]
            strength = float(rng.choice([0.5, 1.0]))
        if rng.random() < 0.35:
            traits = tuple(float(x) for x in np.round(rng.uniform(-1, 1, len(TRAITS)), 3))
    return Take(name, speaker, room, _place(room, split, rng), emotion, strength, traits)


def tasks(split: str, seed: int = SEED) -> list[Task]:
    """What a split consists of, in order. No sentence of dev or test occurs in training.

    test-short and dev-short, texts of one to four words, avoid the words of all sentences of the splits before them
    instead, so that those are what they are without them; all of both is spoken in the studio.
    """
    rng = np.random.default_rng([seed, 100 + SPLITS.index(split)])
    grammar = Grammar(rng)
    if split == VOICES:
        return _voices_tasks(grammar, rng, seed)
    people = speakers(split, seed)
    if split == "train":
        return _train_tasks(grammar, people, rng, seed)
    rooms = list(ROOMS)
    lengths: list[int]
    if split == "test":
        lengths = [TEST_LENGTHS[i] for i in np.random.default_rng([seed, 55]).permutation(len(TEST_LENGTHS))]
    elif split == "dev":
        lengths = [
            int(n) for n in rng.choice([3, 4, 6, 8, 10, 12, 15, 18, 22, 28], DEV_SPEAKERS * DEV_UTTERANCES)
        ]
    elif split == "test-enrol":
        lengths = [int(n) for n in rng.integers(10, 18, TEST_SPEAKERS * ENROL_UTTERANCES)]
    elif split in ULTRA_SHORT:
        lengths = [1 + int(n) % 4 for n in rng.permutation(ULTRA_SHORT[split])]
    else:
        lengths = [int(n) for n in rng.integers(6, 16, SCRAMBLED_UTTERANCES)]
    seen: set[str] = set()
    key = str
    if split in ULTRA_SHORT:
        key = bare
        before = SPLITS[: SPLITS.index(split)]
        seen = {bare(task.text) for other in before for task in tasks(other, seed)}
    result = []
    for i, length in enumerate(lengths):
        speaker = people[i % len(people)]
        text = ""
        while not text or key(text) in seen:
            text = grammar.scrambled(length) if split == "test-scrambled" else grammar.sentence(length)
        seen.add(key(text))
        room = None
        if split in ULTRA_SHORT:
            room = "studio"
        elif split.startswith("test"):  # every speaker is heard in the studio and in other rooms
            turn = i // len(people)
            room = "studio" if turn % 2 == 0 else rooms[1 + (i + turn) % (len(rooms) - 1)]
        take = _take(f"{split}-{i:04d}", speaker, split, rng, room)
        result.append(Task(seed, i, text, speaker.base_voice, WORDS_PER_MINUTE, (take,)))
    return result


def bare(text: str) -> str:
    """The words of a text without its marks: "anna!" and "anna." are the same."""
    return " ".join(word.strip(".,?!") for word in text.split())


def _train_tasks(grammar: Grammar, people: list[Speaker], rng: np.random.Generator, seed: int) -> list[Task]:
    held_out = {task.text for split in HELD_OUT for task in tasks(split, seed)}
    groups: dict[str, list[Speaker]] = {}
    for person in people:
        groups.setdefault(person.base_voice, []).append(person)
    bases = sorted(groups)
    result = []
    for number in range(TRAIN_SENTENCES):
        write = _writer(grammar, rng)
        text = write()
        while text in held_out:
            text = write()
        group = groups[bases[number % len(bases)]]
        chosen = rng.choice(len(group), size=min(VOICES_PER_SENTENCE, len(group)), replace=False)
        takes = tuple(
            _take(f"train-{number:05d}-{k}", group[int(c)], "train", rng)
            for k, c in enumerate(sorted(chosen))
        )
        result.append(
            Task(
                seed,
                number,
                text,
                bases[number % len(bases)],
                WORDS_PER_MINUTE + int(rng.integers(-12, 13)),
                takes,
            )
        )
    return result


def _voices_tasks(grammar: Grammar, rng: np.random.Generator, seed: int) -> list[Task]:
    """All accents by all variants of training in turn; each speaker says one sentence, in a place of their own.

    What is learnt from a few places is lost in others.
    """
    held_out = {bare(task.text) for split in (*HELD_OUT, *ULTRA_SHORT) for task in tasks(split, seed)}
    bases = [
        (accent, variant) for variant in voices.TRAIN_VARIANTS for accent in dict.fromkeys(voices.ACCENTS)
    ]
    result = []
    for number in range(VOICES_SENTENCES):
        text = _writer(grammar, rng)()
        while bare(text) in held_out:
            text = _writer(grammar, rng)()
        base = bases[number % len(bases)]
        names = [f"{VOICES}-{number:05d}-{k}" for k in range(VOICES_PER_SENTENCE)]
        takes = tuple(
            replace(_take(name, draw_speaker(name, base, rng), "train", rng), place=OWN_PLACES + place)
            for place, name in enumerate(names, VOICES_PER_SENTENCE * number)
        )
        pace = WORDS_PER_MINUTE + int(rng.integers(-12, 13))
        result.append(Task(seed, number, text, takes[0].speaker.base_voice, pace, takes))
    return result


def _writer(grammar: Grammar, rng: np.random.Generator) -> Callable[[], str]:
    """What writes texts of one length as training says them: a few are short, some are words in no order."""
    length = int(rng.integers(1, 6)) if rng.random() < 0.15 else int(rng.integers(5, 27))
    write = grammar.scrambled if rng.random() < SCRAMBLED_SHARE else grammar.sentence
    return partial(write, length)


def perform(task: Task) -> list[tuple[dict, np.ndarray]]:
    """Make the sound of a task: rows of the index (without offset) and 16-bit samples."""
    rng = np.random.default_rng([task.seed, 5, task.number, len(task.text)])
    analysis = voices.analyse(engine.shared().say(task.text, task.base_voice, task.words_per_minute))
    result = []
    for take in task.takes:
        prosody = voices.emotion_prosody(take.emotion, take.strength).times(
            voices.persona_prosody(dict(zip(TRAITS, take.traits, strict=True)))
        )
        wave, words = voices.speak_as(analysis, take.speaker, prosody)
        start, end = words[0][1], words[-1][2]
        lead, tail = int(LEAD_SECONDS * SAMPLE_RATE), int(TAIL_SECONDS * SAMPLE_RATE)
        spoken = wave[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
        wave = np.concatenate([np.zeros(lead, np.float32), spoken, np.zeros(tail, np.float32)])
        words = [
            (w, round(a - start + LEAD_SECONDS, 4), round(b - start + LEAD_SECONDS, 4)) for w, a, b in words
        ]
        wave, snr = place_in(wave, take.room, take.place, task.seed, rng)
        row = {
            "utterance": take.utterance,
            "speaker": take.speaker.name,
            "base_voice": take.speaker.base_voice,
            "accent": take.speaker.accent,
            "room": take.room,
            "place": take.place,
            "snr_db": snr,
            "emotion": take.emotion,
            "strength": take.strength,
            **dict(zip(TRAITS, take.traits, strict=True)),
            "text": task.text,
            "samples": len(wave),
            "word_times": words,
        }
        result.append((row, np.round(wave * 32767).astype(np.int16)))
    return result


def performed(todo: list[Task], workers: int) -> Iterator[list[tuple[dict, np.ndarray]]]:
    """The sound of each task, in order, each made in a fresh process.

    espeak-ng remembers what it said before in ways that no call of it clears, so only a process that has said nothing
    makes the same sound every time. They are forked from a server that computes nothing: what is forked from a process
    whose threads are at work can wait for ever for a lock that one of them held. As with all of `multiprocessing`, a
    script that calls this keeps its own work behind `if __name__ == "__main__"`.
    Raises CorpusError where there is no such server (Windows without WSL), EngineError without espeak-ng.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        raise CorpusError("building the world needs a system that can fork: Linux, macOS or WSL")
    engine.library()  # that it is missing is told here and not by every child
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "pyworld", "espeakng_loader", __name__])
    with context.Pool(workers, maxtasksperchild=1) as pool:
        made = pool.imap(perform, todo, chunksize=1)
        for _ in todo:
            try:
                yield made.next(PATIENCE)
            except multiprocessing.TimeoutError as error:
                # without an end the pool would wait for ever for a process that was killed
                raise CorpusError(
                    f"no utterance in {PATIENCE:.0f} s: a process was probably killed (memory?); run again with fewer "
                    "--workers, what is finished is kept"
                ) from error


def build_split(split: str, *, workers: int = 1, force: bool = False, seed: int = SEED) -> None:
    """Make one split unless it is there, going on where an interrupted build stopped.

    It appears under its final name only when it is whole. Of several processes one makes it, and the others wait.
    Raises CorpusError on a disk that is full.
    """
    paths.WORLD.mkdir(parents=True, exist_ok=True)
    with FileLock(paths.WORLD / f".{split}.lock"):
        _build_split(split, workers, force, seed)


def _build_split(split: str, workers: int, force: bool, seed: int) -> None:
    sound, index = paths.WORLD / f"{split}.pcm", paths.WORLD / f"{split}.jsonl"
    parts = [p.with_name(p.name + ".part") for p in (sound, index)]
    if force:
        for path in (sound, index, *parts):
            path.unlink(missing_ok=True)
    elif sound.exists() and index.exists():
        open_split(split)
        return
    todo = tasks(split, seed)
    done, offset = _take_up(parts[0], parts[1], todo)
    try:
        with parts[0].open("ab") as pcm, parts[1].open("a") as lines:
            bar = tqdm(total=len(todo), initial=done, desc=f"world {split}", mininterval=2)
            for made in performed(todo[done:], workers):
                for row, samples in made:
                    pcm.write(samples.tobytes())
                    lines.write(json.dumps({**row, "offset": offset}) + "\n")
                    offset += len(samples)
                bar.update(1)
            bar.close()
    except OSError as error:
        raise CorpusError(
            f"cannot write {sound}: {error}; free some space or set PVLIB_BUILD to another disk, and run again: "
            "what is finished is kept"
        ) from error
    os.replace(parts[0], sound)
    os.replace(parts[1], index)


def _take_up(pcm: Path, lines: Path, todo: list[Task]) -> tuple[int, int]:
    """Cut what an interrupted build left back to whole tasks of this very plan: (tasks done, samples)."""
    if not pcm.exists() or not lines.exists():
        for path in (pcm, lines):  # one without the other is nothing to go on with
            path.unlink(missing_ok=True)
        return 0, 0
    rows = []
    size = pcm.stat().st_size // 2
    for line in lines.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # the last line, half written
            break
        if row["offset"] + row["samples"] > size:
            break
        rows.append((row, line))
    done = kept = 0
    for task in todo:
        made = rows[kept : kept + len(task.takes)]
        names = [(row["utterance"], row["speaker"], row["text"]) for row, _ in made]
        if names != [(take.utterance, take.speaker.name, task.text) for take in task.takes]:
            break
        done, kept = done + 1, kept + len(made)
    offset = rows[kept - 1][0]["offset"] + rows[kept - 1][0]["samples"] if kept else 0
    os.truncate(pcm, 2 * offset)
    lines.write_text("".join(line + "\n" for _, line in rows[:kept]))
    return done, offset


def build(*, workers: int | None = None, force: bool = False, seed: int = SEED) -> None:
    """Build every split (about three quarters of an hour on two cores, 4 GB under build/world)."""
    for split in SPLITS:
        build_split(split, workers=workers or os.cpu_count() or 1, force=force, seed=seed)
    people = [asdict(p) for split in ("train", "dev", "test") for p in speakers(split, seed)]
    (paths.WORLD / "speakers.json").write_text(json.dumps(people, indent=1))
