"""The adapters: invisible before training, gated by row, and whole after a round trip."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pvlib import audio, backbone, config, hub, paths, recognizer, speaker
from pvlib.adapters import Adapters, Conditions, tempo_input
from pvlib.oes import OES
from pvlib.training import adapters as trainer
from pvlib.training import separation
from pvlib.training.common import TrainingError

SMALL = replace(config.Backbone(), dim=32, depth=3, heads=1, dim_head=32, text_dim=16, conv_layers=1)
SETTINGS = config.Adapters(film_width=8)


def network() -> backbone.Backbone:
    """A small backbone as if trained: the official gates and output start at zero and would hide everything."""
    torch.manual_seed(0)
    model = backbone.build(SMALL)
    for parameter in model.transformer.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


@pytest.fixture
def model() -> backbone.Backbone:
    return network()


@pytest.fixture
def module(model) -> Adapters:
    torch.manual_seed(1)
    return Adapters(SETTINGS, model.transformer)


def conditions(rows: int) -> Conditions:
    generator = torch.Generator().manual_seed(2)
    return Conditions(*(torch.randn(rows, size, generator=generator) for size in (192, 64, 64, 4)))


def awake(module: Adapters) -> Adapters:
    """As if trained: FiLM says something, and the copies of the blocks are others."""
    for film in module.film:
        torch.nn.init.normal_(film.gamma_net[-1].weight, std=0.3)
        torch.nn.init.normal_(film.beta_net[-1].weight, std=0.3)
    with torch.no_grad():
        for parameter in module.blocks.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return module


def items() -> list[backbone.Item]:
    mel = torch.randn(20, 100, generator=torch.Generator().manual_seed(3))
    return [
        backbone.Item(mel, "red. ", text, frames, seed=4) for text, frames in (("fox", 44), ("blue fox", 52))
    ]


def sampled(
    model: backbone.Backbone, module: Adapters | None, active: torch.Tensor | None = None
) -> list[torch.Tensor]:
    if module is None:
        return model.sample(items(), steps=2)
    with torch.no_grad(), module.modulating(model.transformer, module.condition(conditions(2)), active):
        return model.sample(items(), steps=2)


def test_untrained_adapters_change_nothing(model, module):
    for plain, adapted in zip(sampled(model, None), sampled(model, module), strict=True):
        assert torch.equal(plain, adapted)


def test_trained_ones_do_and_leave_no_trace(model, module):
    plain = sampled(model, None)
    adapted = sampled(model, awake(module))
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(plain, adapted, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain, sampled(model, None), strict=True))


def test_a_closed_gate_gives_back_the_backbone_exactly(model, module):
    closed = sampled(model, awake(module), torch.tensor([False, False]))
    assert all(torch.equal(a, b) for a, b in zip(sampled(model, None), closed, strict=True))


def test_the_gate_is_kept_row_by_row(model, module):
    plain, always = sampled(model, None), sampled(model, awake(module))
    gated = sampled(model, module, torch.tensor([False, True]))
    assert torch.equal(gated[0], plain[0])
    torch.testing.assert_close(gated[1], always[1])
    assert (gated[1] - plain[1]).abs().max() > 1e-3


def passes(model: backbone.Backbone) -> torch.Tensor:
    """One guided pass of the DiT over two rows: (4, n, d), the conditional rows first."""
    generator = torch.Generator().manual_seed(5)
    x, cond = (torch.randn(2, 6, model.cfm.num_channels, generator=generator) for _ in range(2))
    text = model.encode(["red fox", "blue fo"])
    with torch.no_grad():
        return model.transformer(x=x, cond=cond, text=text, time=torch.tensor(0.5), cfg_infer=True)


def test_the_unconditional_half_is_not_modulated(model, module):
    condition, awake_ = module.condition(conditions(2)), awake(module)
    with awake_.modulating(model.transformer, condition):
        spoken = passes(model)
    with awake_.modulating(model.transformer, condition, silent=True):
        silent = passes(model)
    torch.testing.assert_close(spoken[2:], silent[2:])
    assert (spoken[:2] - silent[:2]).abs().max() > 1e-3


def test_env_weight_moves_the_environment_only(module):
    given = conditions(3)
    studio, there = module.condition(given, 0.0), module.condition(given, 1.0)
    torch.testing.assert_close(there[:, :192], given.embedding)  # weight 1 is the original microphone
    _, environment = module.oes.split(given.embedding)
    torch.testing.assert_close(there[:, :192] - studio[:, :192], environment)
    assert torch.equal(there[:, 192:], studio[:, 192:])
    without = module.condition(given, use_oes=False)
    assert not without[:, :192].any() and torch.equal(without[:, 192:], studio[:, 192:])


def test_style_says_nothing_until_it_is_trained(module):
    given = conditions(2)
    for film in awake(module).film:
        one, other = (
            film.gamma_net(module.condition(replace(given, style=style)))
            for style in (given.style, 0 * given.style)
        )
        assert torch.equal(one, other)


def test_the_copies_are_the_adapters_own(model, module):
    frozen = {key: value.clone() for key, value in model.transformer.state_dict().items()}
    awake(module)
    assert all(torch.equal(value, frozen[key]) for key, value in model.transformer.state_dict().items())
    block = sum(p.numel() for p in model.transformer.transformer_blocks[0].parameters())
    assert sum(p.numel() for p in module.blocks.parameters()) == 2 * block
    assert all(p.requires_grad for name, p in module.named_parameters() if name != "tempo.weight")


# Their trainer, on a corpus of noise with labels


@pytest.fixture
def labelled(toy_corpus):
    """The toy corpus with rooms, emotions and traits, and untrained networks to stand on."""
    for split in ("train", "dev"):
        path = paths.WORLD / f"{split}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for k, row in enumerate(rows):
            row |= {"room": ("studio", "hall")[k // 4 % 2 if k % 2 else 0], "place": k % 2, "strength": 0.5}
            row |= {"emotion": config.EMOTIONS[k % 4 if k > 5 else 0]} | dict.fromkeys(
                config.TRAITS, 0.1 * (k - 3)
            )
        path.write_text("\n".join(json.dumps(row) for row in rows))
    profile = replace(
        config.MINI,
        backbone=SMALL,
        speaker_encoder=config.SpeakerEncoder(channels=(16, 16, 16, 16, 48)),
        recognizer=config.Recognizer(channels=16, hidden=16, layers=2),
        adapters=SETTINGS,
    )
    torch.manual_seed(0)  # it says where letters sound, and some draws leave no room for the first
    ears = recognizer.build(profile.recognizer)
    hub.save_weights("recognizer", profile, ears.state_dict(), {"steps": 0})
    hub.save_weights("backbone", profile, network().state_dict(), {"steps": 0})
    encoder = speaker.build(profile.speaker_encoder)
    hub.save_weights("speaker_encoder", profile, encoder.state_dict(), {"steps": 0})
    return profile


def test_the_trainer_resumes_freezes_and_exports(labelled, monkeypatch, tmp_path):
    monkeypatch.setattr(trainer, "WARM_UP_STEPS", 1)
    trainer.train(labelled, steps=3)
    unbroken = hub.read_weights("adapters", labelled)
    model = hub.load_backbone(labelled)
    module = hub.load_adapters(labelled, model)
    untrained = Adapters(SETTINGS, model.transformer)
    moved = {
        k.split(".")[0] for k, v in module.state_dict().items() if not v.equal(untrained.state_dict()[k])
    }
    assert moved == {"oes", "emotion", "blocks", "film"}
    assert any(f.gamma_net[-1].weight.any() for f in module.film)
    assert not any(p.requires_grad for p in module.parameters())

    monkeypatch.setattr(paths, "TRAINING", tmp_path / "again")
    trainer.train(labelled, steps=3, minutes=0)
    trainer.train(labelled, steps=3)
    resumed = hub.read_weights("adapters", labelled)
    assert unbroken.keys() == resumed.keys()
    for key, value in unbroken.items():
        assert torch.equal(value, resumed[key]), key
    trainer.export(labelled)
    assert torch.equal(hub.read_weights("adapters", labelled)["oes.env_basis"], resumed["oes.env_basis"])

    card = hub.read_card("adapters", labelled)
    assert card["backbone_sha256"] == hub.fingerprint("backbone", labelled)
    assert set(card["rooms"]) == {"hall", "studio"} and 0 <= card["quality"]["room_timbre"] <= 1
    hub.save_weights("backbone", labelled, backbone.build(SMALL).state_dict(), {"steps": 0})
    with pytest.raises(hub.WeightsError, match="another backbone.*pvlib train adapters"):
        hub.load_adapters(labelled, hub.load_backbone(labelled))


def test_adapters_that_nobody_trained(labelled):
    with pytest.raises(hub.WeightsError, match=r"adapters\.safetensors is missing; .*`pvlib train adapters`"):
        hub.load_adapters(labelled, hub.load_backbone(labelled))
    with pytest.raises(TrainingError, match="run `pvlib train adapters` first"):
        trainer.export(labelled)


def test_pairs_hide_the_sentence_and_tell_its_labels(labelled):
    pairs = trainer.Pairs("train", labelled, hub.load_backbone(labelled))
    rng = np.random.default_rng(0)
    i = pairs.in_room[0]
    mel, frames, text, index, known, given = pairs.batch([i], 1, rng)
    assert known.tolist() == [audio.CLIP_FRAMES // 2] and frames.tolist() == [
        2 * known.item() + pairs.lengths[i]
    ]
    sentence = torch.from_numpy(np.asarray(pairs.rows.cache.mel(i), dtype=np.float32))
    torch.testing.assert_close(mel[0, 2 * known.item() :], sentence)
    letters = model_text(pairs.model, text[0])
    first = letters[index[0][known.item() :].clamp(min=0)[index[0][known.item() :] >= 0].min()]
    assert letters.endswith("red fox") and first == "r"
    table = pairs.table.iloc[i]
    assert given.emotion[0].sum() == pytest.approx(1.0)
    assert given.emotion[0, config.EMOTIONS.index(table.emotion)] >= 0.5
    clips = pairs.clips[i][1]
    assert (pairs.table.speaker.iloc[clips] == table.speaker).all() and (
        pairs.table.room.iloc[clips] == table.room
    ).all()


def model_text(model: backbone.Backbone, indices: torch.Tensor) -> str:
    letters = {index: letter for letter, index in model.vocabulary.items()}
    return "".join(letters[k] for k in indices.tolist() if k >= 0)


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_separation_takes_the_room_out_of_the_timbre(scale):
    """Embeddings that are a voice and a room added up: a fresh reader finds the room in the environment only."""
    rng = torch.Generator().manual_seed(0)
    room, speaker_of = (torch.randint(n, (800,), generator=rng) for n in (4, 10))
    rooms, voices = torch.randn(4, 24, generator=rng), torch.randn(10, 24, generator=rng)
    z = rooms[room] + voices[speaker_of] + 0.3 * torch.randn(800, 24, generator=rng)
    oes = OES(24, 4, scale)
    place = 3 * room + torch.randint(3, (800,), generator=rng)
    losses = separation.fit(oes, z, room, speaker_of, place)
    with torch.no_grad():
        timbre, environment = oes.split(z)
    assert oes.env_scale.item() == pytest.approx(1.0, abs=0.01) and losses["apart"] < 1e-3
    true = rooms - rooms.mean(0)
    assert (
        true - true @ oes.basis() @ oes.basis().T
    ).norm() < 0.1 * true.norm()  # the rooms' plane was found
    assert separated(z, room) > 0.95 and separated(environment, room) > 0.95
    assert separated(timbre, room) < 1.5 / 4 and separated(timbre, speaker_of) > 0.9


def test_an_untrained_basis_separates_nothing():
    rng = torch.Generator().manual_seed(0)
    room = torch.randint(4, (800,), generator=rng)
    z = torch.randn(4, 192, generator=rng)[room] + 0.3 * torch.randn(800, 192, generator=rng)
    timbre, _ = OES(env_scale_init=1.0).split(z)
    assert separated(timbre.detach(), room) > 0.9


def separated(x: torch.Tensor, label: torch.Tensor) -> float:
    """How well a linear reader trained on half tells the labels of the other half."""
    reader = separation.probe(x[::2], label[::2], int(label.max()) + 1)
    return separation.accuracy(reader, x[1::2], label[1::2])


def test_the_probe_is_a_linear_reader_and_its_accuracy_is_balanced():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=rng)
    label = (x[:, 0] > 1).long()  # one in six
    assert separation.accuracy(separation.probe(x, label, 2), x, label) > 0.95
    blind = (torch.zeros(2, 2), torch.tensor([1.0, 0.0]))  # always says 0
    assert separation.accuracy(blind, x, label) == 0.5


def test_the_tempo_is_found_whatever_the_speakers_pace(model):
    """Sentences whose length follows emotion and traits exactly, by speakers of different pace."""
    rng = torch.Generator().manual_seed(0)
    n = 200
    module = Adapters(SETTINGS, model.transformer)
    emotion = torch.nn.functional.one_hot(torch.randint(4, (n,), generator=rng), 4).float()
    traits = torch.randn(n, SETTINGS.persona_dim, generator=rng) / 10
    speaker_of = torch.randint(5, (n,), generator=rng)
    zeros = (torch.zeros(n, SETTINGS.speaker_dim), torch.zeros(n, SETTINGS.style_dim))
    given = Conditions(zeros[0], traits, zeros[1], emotion)
    assert torch.equal(module.stretch(given), torch.ones(n))
    true = torch.tensor([0.0, -0.1, 0.2, -0.15])
    longer = emotion @ true + 0.5 * traits[:, 0] + torch.randn(5, generator=rng)[speaker_of]
    trainer.pace(module, SimpleNamespace(tempos=lambda: (tempo_input(traits, emotion), longer, speaker_of)))
    torch.testing.assert_close(
        module.stretch(given).log(), emotion @ true + 0.5 * traits[:, 0], atol=1e-4, rtol=1e-3
    )
    trainer.pace(module, SimpleNamespace(tempos=lambda: None))  # speech without labels changes nothing
    assert module.tempo.weight.any()
