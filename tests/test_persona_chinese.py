"""Chinese chats go to a Chinese encoder: what is read by whom, and a small BERT of the official layout."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from pvlib import hub, models, persona_chinese, persona_words, wishes
from pvlib.config import MINI, PAPER, TRAITS
from pvlib.hub import WeightsError
from pvlib.persona import PersonaExtractor
from pvlib.persona_chinese import BilingualExtractor, is_chinese

BERT = next(model for model in models.MODELS if model.name == "BERT (Chinese)")
CHAT = ["周末大家都来我家！", "我请了五十个人，太热闹了！"]


def poles(texts):
    """An encoder that knows the anchors: a direction for each trait, forwards for its high pole."""
    found = []
    for text in texts:
        vector = torch.full((8,), 0.01)
        for k, trait in enumerate(TRAITS):
            for anchors in (persona_chinese.ANCHORS, persona_words.ANCHORS):
                high, low = anchors[trait]
                vector[k] += (text in high) - float(text in low)
        found.append(vector + 0.01 * (len(text) % 7))
    return normalize(torch.stack(found), dim=-1)


class Heard:
    """An encoder that keeps what it was given."""

    def __init__(self, encode):
        self.encode, self.texts = encode, []

    def __call__(self, texts):
        self.texts += texts
        return self.encode(texts)


@pytest.fixture
def both():
    english, chinese = Heard(poles), Heard(poles)
    made = BilingualExtractor(english, chinese)
    english.texts.clear(), chinese.texts.clear()
    return made, english, chinese


def test_every_anchor_is_said_in_chinese_once():
    said = [text for sides in persona_chinese.ANCHORS.values() for side in sides for text in side]
    assert all(map(is_chinese, said)) and len(set(said)) == len(said)
    for trait, sides in persona_words.ANCHORS.items():
        assert list(map(len, sides)) == list(map(len, persona_chinese.ANCHORS[trait]))


@pytest.mark.parametrize(
    ("text", "chinese"),
    [
        ("把大家都叫来", True),
        ("我用 WeChat 聊天呢", False),
        ("我们用微信 OK", True),
        ("hello", False),
        ("123！", False),
        ("こんにちは", False),
    ],
)
def test_what_counts_as_chinese(text, chinese):
    assert is_chinese(text) == chinese


def test_each_chat_is_read_by_the_encoder_of_its_language(both):
    extractor, english, chinese = both
    read = extractor.batch([CHAT, ["Bring everyone along, the more the merrier!"]])
    assert chinese.texts == CHAT and english.texts == ["Bring everyone along, the more the merrier!"]
    assert [one.read_share for one in read] == [1.0, 1.0]


def test_an_english_chat_is_read_as_without_chinese(both):
    extractor, *_ = both
    chat = [persona_words.ANCHORS["openness"][0][0], "I like it."]
    assert extractor(chat).traits == PersonaExtractor(poles)(chat).traits


@pytest.mark.parametrize("trait", TRAITS)
def test_chinese_anchors_show_their_trait(both, trait):
    extractor, *_ = both
    high, low = (extractor(list(side)).sentences[trait] for side in persona_chinese.ANCHORS[trait])
    assert high > 0.5 and low < -0.5


def test_a_chat_of_both_goes_where_most_of_it_is(both):
    extractor, english, chinese = both
    read = extractor(["把大家都叫来吧！", "太热闹了！", "See you soon."])
    assert chinese.texts == ["把大家都叫来吧！", "太热闹了！"] and read.read_share == pytest.approx(2 / 3)


def test_recalls_and_short_chats_are_treated_as_everywhere(both):
    extractor, _, chinese = both
    assert extractor(CHAT, {"openness": -1.0}).traits["openness"] < extractor(CHAT).traits["openness"]
    assert extractor("好").traits == dict.fromkeys(TRAITS, 0.0)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A BERT of two thin layers with random weights where the hub's client keeps it."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--google-bert--bert-base-chinese" / "snapshots" / BERT.revision
    folder.mkdir(parents=True)
    letters = sorted({c for text in CHAT for c in text})
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]), encoding="utf-8"
    )
    BertTokenizerFast(str(vocabulary)).save_pretrained(folder)
    vocabulary.write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]), encoding="utf-8"
    )
    torch.manual_seed(0)
    small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(**small, vocab_size=5 + len(letters))).save_pretrained(folder)
    wishes._reader.cache_clear()
    yield folder
    wishes._reader.cache_clear()


def test_the_profile_paper_reads_chinese_and_mini_does_not(cache):
    assert PAPER.reads_chinese and not MINI.reads_chinese
    ours = wishes.reader(PAPER, CHAT)
    assert isinstance(ours, BilingualExtractor) and ours(CHAT).read_share == 1.0
    assert type(wishes.reader(MINI, CHAT)) is PersonaExtractor
    assert type(wishes.reader(PAPER, ["Hello!"])) is PersonaExtractor  # for which no BERT is read
    found = wishes.conditions(PAPER, chat=CHAT)
    assert found["style"].shape == (64,) and set(found["persona"]) == set(TRAITS)


def test_the_embedding_is_the_mean_of_the_token_states(cache):
    encoder = persona_chinese.load_encoder()
    tokens = encoder.tokenizer(CHAT[0], return_tensors="pt")
    with torch.inference_mode():
        mean = encoder.bert(**tokens).last_hidden_state[0].mean(0)
    assert torch.allclose(encoder(CHAT)[0], normalize(mean, dim=0), atol=1e-5)


def test_missing_damaged_or_other_weights_are_told_with_the_command(cache, monkeypatch):
    config = (cache / "config.json").read_text()
    (cache / "config.json").write_text(config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(WeightsError, match="holds no BERT of its own configuration"):
        persona_chinese.load_encoder()
    (cache / "model.safetensors").write_bytes(b"half")
    with pytest.raises(WeightsError, match=r"is damaged .* `pvlib models download`"):
        wishes.reader(PAPER, CHAT)
    (cache / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"is missing .* `pvlib models download`"):
        wishes.conditions(PAPER, chat=CHAT)
    assert hub.REPLACE and replace(PAPER, reads_chinese=False).reads_chinese is False
