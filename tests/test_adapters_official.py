"""Adapters of an official backbone: LibriTTS in simulated rooms; only the adapters move; the memory is known."""

from __future__ import annotations

import io
import weakref
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save
from test_models import lay
from tiny import Recogniser
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pvlib import audio, backbone, cli, config, hub, paths, speaker
from pvlib.adapters import Adapters
from pvlib.config import PAPER
from pvlib.study import facts, libritts
from pvlib.training import adapters as trainer
from pvlib.training import memory
from pvlib.training.common import TrainingError
from pvlib.training.libritts import AS_RECORDED, PLACES, LibriPairs
from pvlib.world.rooms import TRAIN_PLACES

PROFILE = replace(
    PAPER,
    backbone=replace(
        PAPER.backbone, dim=32, depth=4, heads=2, dim_head=16, text_dim=16, conv_layers=1
    ),
    speaker_encoder=config.SpeakerEncoder(channels=(16, 16, 16, 16, 48)),
    adapters=config.Adapters(film_width=8),
)  # fmt: skip
LETTERS = " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,'"
SPEAKERS = ("19", "26", "27", "32", "39", "40")
TESTED = "19"


def official_backbone() -> backbone.Backbone:
    """Small, as if trained: the official gates and output start at zero and would hide everything."""
    torch.manual_seed(0)
    model = backbone.build(PROFILE.backbone, {letter: k for k, letter in enumerate(LETTERS)})
    for parameter in model.transformer.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def lay_file(cache, name: str, file: str, content: bytes) -> None:
    repository = getattr(PAPER.sources, name)
    lay(cache, repository, hub.REVISIONS[repository], file, content)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """LibriTTS/train-clean-100 of noise with six speakers, one of whom is tested, and tiny official checkpoints."""
    from huggingface_hub import constants

    cache, root = tmp_path / "hub", tmp_path / "LibriTTS" / "train-clean-100"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    for name in ("TRAINING", "CHECKPOINTS", "DATA", "MANIFESTS"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    rng = np.random.default_rng(0)
    for person in SPEAKERS:
        folder = root / person / "495"
        folder.mkdir(parents=True)
        for k in range(4):
            name = f"{person}_495_{k:06d}_000000"
            soundfile.write(folder / f"{name}.wav", 0.1 * rng.normal(size=26_000 + 999 * k), 24_000)
            (folder / f"{name}.normalized.txt").write_text(f"Red fox, {'again ' * k}said I.")
    libritts.write(libritts.utterances(root / ".").query("speaker == @TESTED").head(2), root, PROFILE)

    state = official_backbone().cfm.state_dict()
    monkeypatch.setattr(hub, "BACKBONE_ENTRIES", len(state))
    lay_file(cache, "backbone", hub.BACKBONE_WEIGHTS, save({f"ema_model.{k}": v for k, v in state.items()}))
    lay_file(cache, "backbone", hub.BACKBONE_VOCABULARY, "\n".join([*LETTERS, ""]).encode())
    ears = io.BytesIO()
    torch.save(speaker.build(PROFILE.speaker_encoder).network.state_dict(), ears)
    lay_file(cache, "speaker_encoder", hub.SPEAKER_ENCODER_WEIGHTS, ears.getvalue())
    lay_file(cache, "recognizer", "config.json", b"{}")
    monkeypatch.setattr(hub, "load_recognizer", lambda profile, device: Recogniser("red fox"))
    monkeypatch.setattr(trainer, "WARM_UP_STEPS", 1)
    monkeypatch.setattr(trainer, "FRAMES_PER_STEP", 500)
    return root


def test_only_the_adapters_move_and_a_resumed_run_is_the_same(tree, monkeypatch, tmp_path):
    held, load = [], hub.load_backbone
    monkeypatch.setattr(hub, "load_backbone", lambda *given: held.append(load(*given)) or held[-1])
    trainer.train(PROFILE, steps=4, speech=tree)
    unbroken = hub.read_weights("adapters", PROFILE)
    for key, value in official_backbone().state_dict().items():
        assert torch.equal(held[0].state_dict()[key], value), key

    model = hub.load_backbone(PROFILE)
    module = hub.load_adapters(PROFILE, model)
    before = Adapters(PROFILE.adapters, model.transformer).state_dict()
    moved = {k.split(".")[0] for k, v in module.state_dict().items() if not v.equal(before[k].half().float())}
    assert {"oes", "blocks", "film"} <= moved
    assert any(film.gamma_net[-1].weight.any() for film in module.film)
    assert not any(module.hears(part) for part in ("persona", "style", "emotion")) and module.hears("voice")

    monkeypatch.setattr(paths, "TRAINING", tmp_path / "again")
    trainer.train(PROFILE, steps=4, minutes=0, speech=tree)
    trainer.train(PROFILE, steps=4, speech=tree)
    resumed = hub.read_weights("adapters", PROFILE)
    assert unbroken.keys() == resumed.keys()
    for key, value in unbroken.items():
        assert torch.equal(value, resumed[key]), key
    trainer.export(PROFILE, speech=tree)

    card = hub.read_card("adapters", PROFILE)
    assert card["backbone_sha256"] == f"SWivid/F5-TTS@{hub.REVISIONS['SWivid/F5-TTS']}"
    assert card["command"].startswith(
        "pvlib train adapters --profile paper --speech train-clean-100 --steps 4"
    )
    assert card["rooms"] == sorted(PLACES) and "train-clean-100" in card["data"]
    assert card["utterances"] == 16 and "peak_gpu_gb" not in card
    assert card["quality"].keys() >= {"room_timbre", "dev_flow_loss", "dev_flow_loss_of_backbone"}
    with pytest.raises(TrainingError, match="is of another configuration"):
        trainer.train(PROFILE, steps=5, speech=tree.rename(tree.with_name("train-clean-360")))


def pairs(tree) -> LibriPairs:
    return LibriPairs(tree, "train", PROFILE, hub.load_backbone(PROFILE))


def test_nobody_who_is_tested_is_trained_on(tree):
    train = pairs(tree)
    dev = train.dev()
    assert len(set(train.table.speaker)) == 4 and len(set(dev.table.speaker)) == 1
    assert set(train.table.speaker) | set(dev.table.speaker) == set(SPEAKERS) - {TESTED}
    assert not any(clip.place >= TRAIN_PLACES for clip in train.clips)
    assert all(clip.place >= TRAIN_PLACES for clip in dev.clips)
    heard = train.first_seconds()
    assert len(heard.rooms) == len(set(zip(heard.speakers, heard.rooms, strict=True))) == 16
    assert len(set(heard.rooms)) == 7  # of eight: four speakers with four clips each, in turn


def test_a_row_is_a_second_in_its_room_and_another_sentence(tree):
    train = pairs(tree)
    encoder = hub.load_speaker_encoder(PROFILE)
    for i in train.to_studio:
        for env_weight in (0, 1):
            rng = np.random.default_rng(i)
            j = int(np.random.default_rng(i).choice(train.choices[i]))
            mel, frames, letters, index, known, given = train.batch([i], env_weight, rng)
            clip = train.clips[j]
            assert train.table.speaker[clip.utterance] == train.table.speaker[i] and clip.utterance != i
            assert known.tolist() == [audio.CLIP_FRAMES] and index is None
            wave = audio.load(libritts.source(tree, train.table.utterance[i]))
            as_it_is = audio.mel(torch.from_numpy(wave))[0].T
            assert (
                frames.tolist() == [audio.CLIP_FRAMES + len(as_it_is)] and len(as_it_is) == train.lengths[i]
            )
            dry = torch.equal(mel[0, audio.CLIP_FRAMES :], as_it_is)
            assert dry == (env_weight == 0 or clip.room == AS_RECORDED)
            words = "".join(LETTERS[k] for k in letters[0].tolist() if k >= 0)
            assert words == "red fox. " + train.table.text[i]
            second = encoder.embed([train._second(clip)])[0]
            torch.testing.assert_close(given.embedding[0], second, atol=1e-5, rtol=1e-5)
            assert not (given.persona.any() or given.style.any() or given.emotion.any())


def test_clips_without_words_are_left_out(tree, monkeypatch):
    monkeypatch.setattr(hub, "load_recognizer", lambda profile, device: Recogniser("?"))
    with pytest.raises(TrainingError, match="no speaker has two utterances with words"):
        pairs(tree)


def test_what_stands_in_the_way_is_told(tree):
    with pytest.raises(
        libritts.DataError, match="holds no utterances; name the folder of a whole LibriTTS subset"
    ):
        LibriPairs(tree / "absent", "train", PROFILE, None)
    libritts.write(libritts.utterances(tree).groupby("speaker").head(1), tree, PROFILE)
    with pytest.raises(TrainingError, match="6 speakers, 6 of them in the test set, so none is left"):
        pairs(tree)
    (paths.MANIFESTS / f"{PROFILE.manifest}.csv").unlink()
    with pytest.raises(TrainingError, match="run `pvlib data prepare` first"):
        pairs(tree)
    with pytest.raises(
        hub.WeightsError, match=r"make it with `pvlib train adapters --profile paper --speech DIR`"
    ):
        hub.load_adapters(PROFILE, None)


def gradients(source: LibriPairs, module: Adapters, recompute: bool) -> dict[str, torch.Tensor | None]:
    torch.manual_seed(5)
    module.zero_grad()
    rng = np.random.default_rng(0)
    trainer.flow_loss(source, module, source.in_room[:3], 1, rng, (False, False), recompute).backward()
    return {name: p.grad for name, p in module.named_parameters() if p.requires_grad}


def test_recomputed_gradients_are_the_same_and_reach_only_the_adapters(tree):
    source = pairs(tree)
    source.model.requires_grad_(False)
    torch.manual_seed(1)
    module = Adapters(PROFILE.adapters, source.model.transformer)
    module.oes.requires_grad_(False)
    for film in module.film:
        torch.nn.init.normal_(film.gamma_net[-1].weight, std=0.1)
        torch.nn.init.normal_(film.beta_net[-1].weight, std=0.1)
    for part in source.unlabelled:
        module.mute(part)
    kept = {name: gradient.clone() for name, gradient in gradients(source, module, False).items()}
    again = gradients(source, module, True)
    assert all(p.grad is None for p in source.model.parameters())
    for name, gradient in kept.items():
        assert torch.equal(gradient, again[name]), name
        assert gradient.any() != (name == "emotion.weight"), name
    assert not module.film[0].gamma_net[0].weight.grad[:, 192:].any()  # what is mute stays so


# Memory, against what autograd and a real step take


@pytest.fixture
def plain(monkeypatch):
    """fp32, as the computation counts."""
    monkeypatch.setattr(hub, "precision", lambda device: torch.float32)


def step(recompute: bool, rows: int = 3, tokens: int = 300) -> tuple[backbone.Backbone, Adapters, object]:
    """The trainer's own flow loss on rows of noise, to be called."""
    torch.manual_seed(0)
    model = official_backbone().requires_grad_(False)
    module = Adapters(PROFILE.adapters, model.transformer)
    module.oes.requires_grad_(False)
    sizes = (192, 64, 64, 4)

    class Noise:
        def batch(self, sentences, env_weight, rng):
            mel, frames = torch.randn(rows, tokens, 100), torch.full((rows,), tokens)
            given = trainer.Conditions(*(torch.randn(rows, size) for size in sizes))
            text = model.encode(["red fox"] * rows)
            return mel, frames, text, None, torch.full((rows,), 94), given

    noise = Noise()
    noise.model = model

    def loss() -> torch.Tensor:
        args = (list(range(rows)), 1, np.random.default_rng(0), (False, False), recompute)
        return trainer.flow_loss(noise, module, *args)

    return model, module, loss


@pytest.mark.parametrize("recompute", [False, True])
def test_the_frozen_blocks_keep_nothing_and_the_copies_what_was_computed(plain, recompute):
    model, module, loss = step(recompute)
    weights = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *module.parameters())}
    held = {}

    def pack(tensor):
        if (storage := tensor.untyped_storage()).data_ptr() not in weights:
            held[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = loss()
    really = sum(storage.nbytes() for storage in held.values())
    assert kept.requires_grad
    computed = memory.kept(*memory.networks(PROFILE), 3, 300, recompute=recompute)
    assert really == pytest.approx(computed, rel=0.15)


class Living(TorchDispatchMode):
    """Counts the bytes of all tensors alive, those given and those that operations make; `most` at their highest."""

    def __init__(self, given):
        super().__init__()
        self.known, self.now, self.most = set(), 0, 0
        self.add(given)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        self.add(leaf for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor))
        return made

    def add(self, tensors):
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if id(storage) not in self.known:
                self.known.add(id(storage))
                self.now += storage.nbytes()
                weakref.finalize(storage, self.forget, id(storage), storage.nbytes())
        self.most = max(self.most, self.now)

    def forget(self, key, size):
        self.known.discard(key)
        self.now -= size


@pytest.mark.parametrize("recompute", [False, True])
def test_a_real_step_takes_no_more_than_was_computed(plain, monkeypatch, recompute):
    monkeypatch.setattr(memory, "recipe", lambda profile: replace(trainer.OFFICIAL, recompute=recompute))
    model, module, loss = step(recompute)
    ema = trainer.Ema(module)
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-3)
    loss().backward()
    optimiser.step()  # Adam's moments come to be
    optimiser.zero_grad(set_to_none=True)
    moments = [moment for state in optimiser.state.values() for moment in state.values()]
    lasting = (*model.parameters(), *model.buffers(), *module.parameters(), *ema.shadow.values(), *moments)
    with Living(lasting) as living:
        loss().backward()
        optimiser.step()
    measured = living.most
    computed = memory.table(PROFILE, rows=3, frames=300)["bytes"].iat[-1]
    assert measured <= computed <= 2 * measured


def test_at_full_size_parameters_are_those_that_were_counted():
    found = memory.table(PAPER).set_index("part")["bytes"]
    model, module = memory.networks(PAPER)
    assert sum(p.numel() for p in module.blocks.parameters()) == 2 * facts.counted("parameters of a block")
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    assert found["backbone, frozen, fp32"] == 4 * facts.counted("parameters of the backbone") + buffers
    apart = [*module.oes.parameters(), *module.tempo.parameters()]  # fitted beforehand
    trained = sum(p.numel() for p in module.parameters()) - sum(p.numel() for p in apart)
    assert found["gradients, fp32"] == 4 * trained and found["Adam's moments, fp32"] == 8 * trained
    total = found["in all, at most"]
    assert total == found.drop("in all, at most").sum() < 8e9
    readme = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    assert f"The dry run counts at most {total / 1e9:.1f} GB" in " ".join(readme.split())


def test_more_sentences_take_more():
    model, module = memory.networks(PROFILE)
    one, two = (memory.kept(model, module, rows, 300, recompute=False) for rows in (1, 2))
    assert 1.8 * one < two < 2.05 * one


# The command


def test_the_dry_run_prints_the_sum_beside_the_claim(capsys):
    assert cli.main(["train", "adapters", "--profile", "paper", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "in all, at most" in out and '"8 GB VRAM sufficient' in out and out.rstrip().endswith("fits")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["vocoder", "--profile", "paper"], "trained: `pvlib train adapters --profile paper --speech DIR`"),
        (["all", "--profile", "paper"], "only its adapters are trained"),
        (["adapters", "--profile", "paper"], "needs --speech DIR"),
        (["adapters", "--speech", "x"], "learns from the mini world"),
        (
            ["vocoder", "--dry-run"],
            "--dry-run computes the memory of the adapters: `pvlib train adapters --dry-run`",
        ),
        (
            ["vocoder", "--dry-run", "--profile", "paper"],
            "`pvlib train adapters --profile paper --speech DIR --dry-run`",
        ),
        (["adapters", "--profile", "maxi"], "no profile 'maxi'"),
    ],
)
def test_what_cannot_be_trained_is_told(arguments, told, capsys):
    assert cli.main(["train", *arguments]) == 2
    line = capsys.readouterr().err
    assert told in line and line.count("\n") == 1


def test_the_command_hands_profile_and_speech_on(monkeypatch, tmp_path):
    done = []
    monkeypatch.setattr(trainer, "train", lambda **given: done.append(given))
    monkeypatch.setattr(trainer, "export", lambda **given: done.append(given))
    monkeypatch.setattr("pvlib.study.preflight.check", lambda profile: done.append(profile.name))
    command = ["train", "adapters", "--profile", "paper", "--speech", str(tmp_path)]
    assert cli.main([*command, "--steps", "9"]) == cli.main([*command, "--export-only"]) == 0
    assert done[0] == done[2] == "paper"  # that it can run here is asked first
    assert done[1] == {
        "profile": PAPER, "speech": tmp_path, "steps": 9, "minutes": None, "threads": None,
    }  # fmt: skip
    assert done[3] == {"profile": PAPER, "speech": tmp_path}
