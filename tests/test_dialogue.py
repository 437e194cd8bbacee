"""A persona's reply: what the script says, and a small model of the official layout through the real loader."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from pvlib import cli, dialogue, hub, models
from pvlib.dialogue import DialogueError
from pvlib.hub import WeightsError
from pvlib.persona import PersonaError

QWEN = next(model for model in models.MODELS if model.name == "Qwen2.5-0.5B")
CORPUS = ["a chat with sam the friend says hello and sam says yes we went to the river today"] * 4


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A Qwen2 of two thin layers, random weights, and a tokenizer of a few words, where the hub's client keeps them."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--Qwen--Qwen2.5-0.5B" / "snapshots" / QWEN.revision
    folder.mkdir(parents=True)
    plain = Tokenizer(BPE())
    plain.pre_tokenizer, plain.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    trainer = BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    plain.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<|endoftext|>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Qwen2Config(
        **small, num_key_value_heads=1, vocab_size=len(tokenizer), eos_token_id=0, bos_token_id=0
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    for file in QWEN.files:
        if not (folder / file).exists():
            (folder / file).write_text("{}")
    written = {"model.safetensors": hub.sha256(folder / "model.safetensors")}
    others = [model for model in models.MODELS if model is not QWEN]
    monkeypatch.setattr(models, "MODELS", (*others, replace(QWEN, sizes={}, sha256=written)))
    return folder


def test_a_person_in_words():
    assert dialogue.description({}) == dialogue.description({"openness": 0.1}) == "a person"
    assert dialogue.description({"extraversion": 0.9}) == "an outgoing person"
    told = dialogue.description({"neuroticism": -0.8, "agreeableness": 0.5, "openness": -0.4})
    assert told == "a down-to-earth, warm-hearted and calm person"
    with pytest.raises(PersonaError, match="no trait 'wit'"):
        dialogue.description({"wit": 1.0})


def test_the_script_holds_who_speaks_what_they_wrote_and_what_is_asked():
    made = dialogue.script("How was\nyour day?", {"extraversion": 1.0}, [f"message {i}" for i in range(30)])
    lines = made.split("\n")
    assert lines[0] == "A chat with Sam, an outgoing person." and lines[-2:] == [
        "Friend: How was your day?",
        "Sam:",
    ]
    assert lines[2:-2] == [f"Sam: message {i}" for i in range(10, 30)]


def test_a_message_cannot_speak_for_the_friend():
    """A line break inside a message would begin a line of the script."""
    assert dialogue.script("hi", chat=["a\nFriend: b"]).count("\nFriend:") == 1


@pytest.mark.parametrize(
    ("line", "words"), [("", "nothing to answer"), (" \n", "nothing"), ("x" * 2001, "2,001")]
)
def test_a_line_that_cannot_be_answered_is_refused(line, words):
    with pytest.raises(DialogueError, match=words):
        dialogue.script(line)


def test_a_reply_is_one_line_and_repeats_with_its_seed(cache):
    model = dialogue.load()
    state = torch.get_rng_state()
    made = [model.reply("hello sam", traits={"openness": 1.0}, seed=seed) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2] and all(one and "\n" not in one for one in made)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_the_person_wrote_changes_the_reply(cache):
    model = dialogue.load()
    assert model.reply("hello", seed=3) != model.reply("hello", chat=["we went to the river"], seed=3)


def test_a_model_that_says_nothing_is_told(cache, monkeypatch):
    model = dialogue.load()
    monkeypatch.setattr(model.tokenizer, "decode", lambda *_, **__: "\nFriend: I am fine")
    with pytest.raises(DialogueError, match="try another seed"):
        model.reply("hello")


def test_missing_and_damaged_are_told_with_the_command(cache):
    (cache / "model.safetensors").write_bytes(b"half")
    with pytest.raises(WeightsError, match=r"is damaged .* `pvlib models download --optional`"):
        dialogue.load()
    (cache / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"is missing .* `pvlib models download --optional`"):
        dialogue.load()


def test_what_is_no_language_model_is_told(cache):
    (cache / "config.json").write_text('{"model_type": "bird"}')
    with pytest.raises(WeightsError, match="cannot be read as a language model"):
        dialogue.Dialogue(cache)


def test_the_command_prints_the_reply(cache, tmp_path, capsys):
    (tmp_path / "chat.txt").write_text("Bring the cousins, bring everyone!\nForty people so far.")
    told = [
        "reply",
        "--to",
        "hello sam",
        "--persona",
        str(tmp_path / "chat.txt"),
        "--trait",
        "openness=1",
        "--seed",
        "4",
    ]
    assert cli.main(told) == 0
    plain = capsys.readouterr().out
    assert cli.main([*told, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["reply"] == plain.strip() and found["traits"]["openness"] == 1.0
    assert found["traits"]["extraversion"] > 0.3


def test_the_command_without_the_model_says_how_to_get_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert cli.main(["reply", "--to", "hello"]) == 2
    assert "pvlib models download --optional" in capsys.readouterr().err
