"""The backbone's trainer: a run taken up again is the run it would have been, and it learns."""

import math
import random
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock

from pvlib import backbone, config, hub, paths, recognizer
from pvlib.training import backbone as trainer
from pvlib.training import backbone_padded
from pvlib.training.common import Stopped, TrainingError, batches_by_length
from pvlib.training.schedule import Progress

SMALL = replace(config.Backbone(), dim=32, depth=1, heads=1, dim_head=32, text_dim=16, conv_layers=1)


# of 16 channels, oneDNN (torch 2.11) never ends a bf16 depthwise convolution over more than 30 steps
EARS = config.Recognizer(channels=64, hidden=16, layers=2)


def profile(conditioning: str = "durations") -> config.Profile:
    return replace(config.MINI, backbone=replace(SMALL, text_conditioning=conditioning), recognizer=EARS)


@pytest.fixture(autouse=True)
def ears(toy_corpus):
    hub.save_weights("recognizer", profile(), recognizer.build(EARS).state_dict(), {"steps": 0})


def train(steps: int, **options) -> dict[str, torch.Tensor]:
    trainer.train(profile(), steps=steps, **options)
    return trainer.averaged(profile())[0].state_dict()


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_and_taken_up_equals_an_unbroken_one(
    toy_corpus, monkeypatch, tmp_path, by
):
    unbroken = train(4)
    monkeypatch.setattr(paths, "TRAINING", tmp_path / "again")
    before, update = signal.getsignal(by), trainer.Ema.update
    monkeypatch.setattr(trainer.Ema, "update", lambda ema: (update(ema), signal.raise_signal(by)))
    with pytest.raises(Stopped, match="stopped at step 1; `pvlib train backbone` goes on"):
        train(4)
    assert signal.getsignal(by) == before
    assert trainer.averaged(profile())[1].step == 1
    monkeypatch.setattr(trainer.Ema, "update", update)
    resumed = train(4)
    for key, value in unbroken.items():
        assert torch.equal(value, resumed[key]), key


def test_the_rate_falls_in_time_for_a_budget(toy_corpus):
    train(4, minutes=0)  # the first step spends it all
    assert trainer.averaged(profile())[1].step == 1
    assert [trainer.learning_rate(1000, done) for done in (0.0, 0.8, 0.9, 1.0)] == pytest.approx(
        [1, 1, 0.5, 0]
    )


def test_larger_steps_take_more_rows_and_the_card_says_so(toy_corpus):
    train(25, larger=2)
    assert "--larger 2" in hub.read_card("backbone", profile())["command"]


def test_rows_are_the_mels_of_the_corpus_and_silence_behind_them(toy_corpus):
    rows = trainer.Rows("train", backbone.build(profile().backbone))
    mel, frames = rows.mels([5, 0], [1.0, 1.0])
    for k, i in enumerate([5, 0]):
        assert frames[k] == rows.lengths[i]
        np.testing.assert_array_equal(mel[k, : frames[k]], rows.cache.mel(i).astype(np.float32))
        assert not mel[k, frames[k] :].any()


def test_a_quicker_row_is_a_squeezed_one_and_its_letters_with_it(toy_corpus, monkeypatch):
    monkeypatch.setattr(trainer, "TEMPO_SHARE", 1.1)
    rows = trainer.Rows("train", backbone.build(profile().backbone))
    ramp = torch.arange(len(rows._frames), dtype=torch.float32)[:, None].expand(-1, 100)
    rows._frames = ramp
    (mel,), (frames,) = rows.mels([0], [0.5])
    assert frames == round(rows.lengths[0] / 2)
    torch.testing.assert_close(mel[1:-1, 0], 2 * torch.arange(int(frames), dtype=torch.float32)[1:-1] + 0.5)
    whole, half = rows.alignment(0), rows.alignment(0, 0.5)
    assert half.tolist() == pytest.approx(whole[::2][: len(half)].tolist(), abs=1)
    _, frames, _, _ = rows.batch([0, 1], torch.Generator().manual_seed(1), (2.0, 2.0))
    assert frames.tolist() == [round(rows.lengths[i] / 2) for i in (0, 1)]
    _, frames, _, _ = rows.batch([0, 1], torch.Generator().manual_seed(1))
    assert frames.tolist() == [rows.lengths[i] for i in (0, 1)]


def test_embedded_weights_are_taken_up_where_no_state_is_left(toy_corpus, monkeypatch, tmp_path):
    train(25)
    embedded = hub.read_weights("backbone", profile())
    monkeypatch.setattr(paths, "TRAINING", tmp_path / "another-machine")
    begun = train(25, from_weights=True)  # nothing is left to do
    for key, value in embedded.items():
        assert torch.equal(begun[key], value), key
    monkeypatch.setattr(paths, "TRAINING", tmp_path / "a-third")
    assert any(not torch.equal(train(27, from_weights=True)[key], value) for key, value in embedded.items())
    card, threads = hub.read_card("backbone", profile()), f"--threads {torch.get_num_threads()}"
    assert card["steps"] == 27
    assert card["command"].endswith(f"from step 25: pvlib train backbone --steps 27 {threads} --from-weights")
    assert (paths.TRAINING / "backbone" / "log.csv").read_text().splitlines()[1].startswith("25,")


def test_weights_that_are_not_there_cannot_be_taken_up(toy_corpus):
    with pytest.raises(hub.WeightsError, match="backbone.*missing"):
        train(2, from_weights=True)


def test_it_learns_and_its_weights_load(toy_corpus):
    train(1)
    before = hub.read_card("backbone", profile())["quality"]["dev_flow_loss"]
    train(60)
    after = hub.read_card("backbone", profile())
    assert after["quality"]["dev_flow_loss"] < 0.97 * before
    assert after["steps"] == 60 and after["utterances"] == 8
    threads = f"--threads {torch.get_num_threads()}"
    first, then = f"pvlib train backbone --steps 1 {threads}", f"pvlib train backbone --steps 60 {threads}"
    assert after["command"] == f"{first}; from step 1: {then}"
    log = hub.weights_path("backbone", profile()).with_name("backbone.log.csv").read_text().splitlines()
    assert log[0] == "step,seconds,loss,hearing,norm,frames" and [line.split(",")[0] for line in log[1:]] == [
        "25",
        "50",
    ]
    loaded = hub.load_backbone(profile(), torch.device("cpu"))
    assert loaded.weights_of("fox").shape == (3,)


def test_steps_lost_by_a_kill_leave_the_log(toy_corpus):
    train(25)
    log = paths.TRAINING / "backbone" / "log.csv"
    whole = log.read_text()
    log.write_text(whole + whole.splitlines()[-1].replace("25,", "50,", 1) + "\n")
    train(25)
    assert log.read_text().splitlines() == whole.splitlines()


def test_who_looks_at_a_run_leaves_its_log_and_a_second_one_waits(toy_corpus):
    train(25)
    folder = paths.TRAINING / "backbone"
    later = (folder / "log.csv").read_text() + "50,9.0,1.0,1.0,1.0,1.0\n75,9"
    (folder / "log.csv").write_text(later)  # of a process that is still at it
    _, run = trainer.averaged(profile())
    trainer.export(profile())
    assert (folder / "log.csv").read_text() == later
    written = hub.weights_path("backbone", profile()).with_name("backbone.log.csv").read_text()
    assert written == "\n".join(later.splitlines()[:2]) + "\n"
    with FileLock(folder / ".lock"), pytest.raises(TrainingError, match="in training already, by another"):
        train(26)
    assert run.step == 25


def test_a_run_from_nothing_begins_its_log_anew_and_an_empty_log_stops_nothing(toy_corpus):
    train(25)
    folder = paths.TRAINING / "backbone"
    whole = (folder / "log.csv").read_text().splitlines()
    (folder / "state.pt").unlink()
    train(25)
    again = (folder / "log.csv").read_text().splitlines()
    assert len(again) == len(whole) and again[0] == whole[0]
    (folder / "log.csv").write_text("")
    _, run = trainer.averaged(profile())  # takes up the state
    run.log({"loss": 1.0})
    assert (folder / "log.csv").read_text().splitlines()[0] == "step,seconds,loss"


def test_a_budget_counts_evaluations_so_that_the_rate_comes_to_its_end():
    told = SimpleNamespace(step=0, seconds=0.0, spent=0.0)
    schedule = Progress(told, steps=1000, minutes=1)
    told.seconds, told.spent = 20.0, 60.0  # two thirds went to evaluations
    assert schedule.progress == 1.0


@pytest.mark.parametrize("conditioning", ["average", "padded"])
def test_other_conditionings_train(toy_corpus, conditioning):
    trainer.train(profile(conditioning), steps=2)
    assert hub.read_card("backbone", profile(conditioning))["steps"] == 2


DEEP = replace(SMALL, depth=4)
BOTH = replace(profile(), backbone=DEEP, backbone_padded=replace(DEEP, text_conditioning="padded"))


@pytest.fixture
def teacher(toy_corpus) -> backbone.Backbone:
    torch.manual_seed(2)
    model = backbone.build(DEEP)
    for block in model.transformer.transformer_blocks:  # as they begin, blocks do nothing
        torch.nn.init.normal_(block.attn_norm.linear.weight, std=0.3)
    torch.nn.init.normal_(model.transformer.proj_out.weight, std=0.1)
    hub.save_weights("backbone", BOTH, model.state_dict(), {"steps": 7})
    return hub.load_backbone(BOTH, torch.device("cpu"))


def test_the_second_backbone_is_resumed_and_loaded_where_padded_text_asks_for_it(
    teacher, monkeypatch, tmp_path
):
    both = BOTH
    monkeypatch.setattr(backbone_padded, "LOWER_STEPS", 2)
    monkeypatch.setattr(backbone_padded, "EARLY_FROM", 3)
    monkeypatch.setattr(backbone_padded, "EARLY_BLOCKS", (1, 3))
    backbone_padded.train(both, steps=4)
    assert [hub.read_card(name, both)["steps"] for name in ("backbone", "backbone-padded")] == [7, 4]
    unbroken = trainer.averaged(both, backbone_padded.NAME)[0].state_dict()
    monkeypatch.setattr(paths, "TRAINING", tmp_path / "again")
    backbone_padded.train(both, steps=4, minutes=1e-9)
    backbone_padded.train(both, steps=4)
    for key, value in trainer.averaged(both, backbone_padded.NAME)[0].state_dict().items():
        assert torch.equal(value, unbroken[key]), key
    monkeypatch.setattr(paths, "TRAINING", tmp_path / "from weights")
    backbone_padded.train(both, steps=5, from_weights=True)
    assert hub.read_card(backbone_padded.NAME, both)["steps"] == 5
    first = hub.load_backbone(both)
    second = hub.load_backbone(replace(both, inference=replace(both.inference, padded_text=True)))
    assert [m.settings.text_conditioning for m in (first, second)] == ["durations", "padded"]
    averages = trainer.averaged(both, backbone_padded.NAME)[0].state_dict()
    for key, value in second.state_dict().items():
        torch.testing.assert_close(value, averages[key], atol=2e-3, rtol=2e-3)
    with pytest.raises(config.ConfigError, match="has no second backbone.*its own reads padded text"):
        hub.load_backbone(config.get_profile("paper", padded_text=True))


def padded_batch(model: backbone.Backbone) -> tuple[torch.Tensor, ...]:
    rows = trainer.Rows("train", model)
    return rows.batch([0, 5], torch.Generator().manual_seed(0))


def test_the_second_backbone_begins_as_the_first(teacher):
    """All that they share is equal, and where there is neither text nor clip both make the same."""
    model = backbone_padded.begun(BOTH.with_padded_text(), teacher)
    own = model.state_dict()
    for key, value in teacher.state_dict().items():
        assert any(part in key for part in backbone_padded.UNUSED) or torch.equal(own[key], value), key
    mel, frames, text, index = padded_batch(model)
    nothing, tokens = torch.full_like(text, backbone.FILLER), model.cfm.tokens(frames)
    losses = []
    for each in (model, teacher):
        torch.manual_seed(0)
        with torch.no_grad(), each.aligned(index):
            stacked = each.cfm.stacked(mel)
            losses.append(trainer.flow_loss(each.cfm, stacked, nothing, tokens, dropped=(True, True)))
    torch.testing.assert_close(*losses)


def test_only_the_lower_blocks_follow_and_they_come_nearer(teacher, monkeypatch):
    monkeypatch.setattr(trainer, "drops", lambda _: (False, False))
    model = backbone_padded.begun(BOTH.with_padded_text(), teacher)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    batch, guide, ema = padded_batch(model), trainer.Guide(model), trainer.Ema(model)
    learners, losses = trainer.optimisers(model), []
    model.train()
    for _ in range(40):
        torch.manual_seed(0)
        found = backbone_padded.follow(model, teacher, learners, ema, batch, 1.0, guide)
        losses.append((float(found["loss"]), float(found["attention"])))
    assert losses[-1][0] < 0.8 * losses[0][0] and losses[-1][1] < losses[0][1]
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert not any("time_embed" in key or "blocks.3" in key or "proj_out" in key for key in changed)
    for part in (
        "text_embed.text_blocks",
        "input_embed.proj",
        *(f"transformer_blocks.{k}." for k in range(3)),
    ):
        assert any(part in key for key in changed), part


@pytest.mark.parametrize(
    ("seconds", "expected"), [((0.45, 0.6), {"red", "fox"}), ((2.0, 3.0), {"red fox", "fox"})]
)
def test_pieces_are_stretches_of_their_utterances_words_sound_and_letters(
    toy_corpus, monkeypatch, seconds, expected
):
    """red is said from 0.1 to 0.5 s, fox from then to 1.05 s, and silence follows to the end."""
    monkeypatch.setattr(backbone_padded, "PIECE_SECONDS", seconds)
    model = backbone.build(profile("padded").backbone)
    rows = trainer.Rows("train", model)
    pieces = backbone_padded.Pieces(rows)
    assert len(pieces.lengths) == backbone_padded.PIECES * len(rows.lengths)
    said = set()
    for i in range(len(pieces.lengths)):
        whole = i // backbone_padded.PIECES
        text = "".join(model.settings.vocabulary[k] for k in pieces.text(i).tolist())
        begin = 46 if text == "fox" else 0  # 93.75 frames a second
        end = 47 if text == "red" else rows.lengths[whole]
        (mel,), (frames,) = pieces.mels([i], [1.0])
        np.testing.assert_array_equal(mel, rows.cache.mel(whole, begin, end).astype(np.float32))
        assert frames == end - begin
        shift = "red fox".index(text)
        moved = rows.edges(whole)[shift : shift + len(text)] - begin / 93.75
        torch.testing.assert_close(pieces.edges(i), moved.clamp(min=0))
        said.add(text)
    assert said == expected


def test_a_clone_is_made_behind_its_clip_and_short_pieces_anywhere(monkeypatch):
    monkeypatch.setattr(backbone_padded, "CLONED", 1.0)
    model = backbone.build(replace(SMALL, text_conditioning="padded", stack=2))
    torch.manual_seed(0)
    made = backbone_padded.to_be_made(model.cfm, torch.tensor([100, 55, 20]))
    assert made.shape == (3, 100)
    for row, tokens in zip(made[:2], (100, 55), strict=True):
        assert torch.equal(row, (torch.arange(100) >= 47) & (torch.arange(100) < tokens))
    assert 0.7 * 20 - 1 <= int(made[2].sum()) <= 20 and not made[2, 20:].any()


def test_early_times_are_a_power_of_the_swayed_ones(teacher):
    mel, frames, _, _ = padded_batch(teacher)
    stacked, tokens = teacher.cfm.stacked(mel), teacher.cfm.tokens(frames)
    given = []
    for power in (1.0, 2.0):
        torch.manual_seed(0)
        given.append(trainer.corrupted(teacher.cfm, stacked, tokens, early=power))
    (usual, hidden, velocity), (early, also_hidden, same) = given
    torch.testing.assert_close(early["time"], usual["time"].square())
    assert torch.equal(hidden, also_hidden) and torch.equal(velocity, same)
    way = early["time"][:, None, None]
    torch.testing.assert_close(early["x"], (1 - way) * (stacked - velocity) + way * stacked)


def test_the_guide_asks_for_the_official_attention_to_lie_on_the_character_that_sounds(teacher, monkeypatch):
    """The weights that the official processor computes, caught where it hands its queries and keys to torch."""
    from f5_tts.model import modules

    model = backbone_padded.begun(BOTH.with_padded_text(), teacher)
    mel, frames, text, index = padded_batch(model)
    tokens, guide, weights = model.cfm.tokens(frames), trainer.Guide(model), []
    official = modules.F.scaled_dot_product_attention

    def caught(query, key, value, attn_mask=None, **options):
        eye = torch.eye(key.shape[2]).expand(*key.shape[:2], -1, -1)
        weights.append(official(query, key, eye, attn_mask=attn_mask)[:, 0])
        return official(query, key, value, attn_mask=attn_mask, **options)

    monkeypatch.setattr(modules.F, "scaled_dot_product_attention", caught)
    with torch.no_grad():
        trainer.flow_loss(model.cfm, model.cfm.stacked(mel), text, tokens, dropped=(False, False))
        watched = guide(index, tokens)
        guide.watch((3,), 1.0)
        trainer.flow_loss(model.cfm, model.cfm.stacked(mel), text, tokens, dropped=(False, False))
        later = guide(index, tokens)
    depth = model.settings.depth
    for found, blocks, caught_then in (
        (watched, trainer.GUIDED_BLOCKS, weights[:depth]),
        (later, (3,), weights[depth:]),
    ):
        expected = []
        for number in blocks:
            own = [
                -caught_then[number][row, t, index[row, t]].log()
                for row in range(2)
                for t in range(int(tokens[row]))
                if index[row, t] >= 0
            ]
            expected.append(torch.stack(own).mean())
        torch.testing.assert_close(found, torch.stack(expected).mean())
    assert not guide._seen


def test_a_state_of_another_configuration_is_refused(toy_corpus):
    train(1)
    with pytest.raises(TrainingError, match="another configuration"):
        trainer.train(replace(profile(), backbone=replace(SMALL, depth=2)), steps=2)


def test_a_damaged_state_is_named(toy_corpus):
    train(1)
    path = paths.TRAINING / "backbone" / "state.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainingError, match="delete it to start backbone from nothing"):
        train(2)
    path.unlink()
    train(1)
    state = torch.load(path, weights_only=True)
    state["parts"].popitem()
    torch.save(state, path)
    with pytest.raises(TrainingError, match="does not fit"):
        train(2)


def test_timing_learns_how_long_letters_last(toy_corpus):
    torch.manual_seed(0)
    model = backbone.build(profile().backbone)
    rows = trainer.Rows("train", model)  # no recogniser: letters share their words evenly
    trainer.fit_timing(model.transformer.text_embed.timing, rows, steps=300)
    lasts = dict(zip("red fox", model.weights_of("red fox").tolist(), strict=True))
    for letter in "red":  # 0.1 to 0.5 s in every utterance
        assert lasts[letter] == pytest.approx(0.4 / 3, rel=0.1)
    assert lasts["f"] == pytest.approx(0.55 / 3, rel=0.1) and lasts[" "] < 0.01
    assert not any(parameter.requires_grad for parameter in model.transformer.text_embed.timing.parameters())
    before = model.weights_of("red fox")
    model.train()
    assert torch.equal(model.weights_of("red fox"), before)  # no dropout


def test_batches_cover_an_epoch_once_and_resume_in_the_middle():
    lengths = [10 + 7 * (i % 13) for i in range(100)]
    stream = batches_by_length(lengths, 200, seed=3)
    seen: list[int] = []
    first = []
    while len(seen) < 100:
        first.append(next(stream))
        seen += first[-1]
    assert sorted(seen) == list(range(100))
    assert all(len(b) * max(lengths[i] for i in b) <= 200 for b in first)
    assert next(batches_by_length(lengths, 200, seed=3, start=5)) == first[5]


def test_row_attention_is_the_official_attention():
    """Values and gradients of our rearranged attention against f5-tts's own, on rows of unequal length."""
    from pvlib import backbone
    from pvlib.attention import RowAttention

    transformer = backbone.build(config.MINI.backbone).transformer
    layer = transformer.transformer_blocks[0].attn
    x = torch.randn(3, 50, config.MINI.backbone.dim, requires_grad=True)
    lengths = torch.tensor([50, 31, 7])
    mask = torch.arange(50) < lengths[:, None]
    rope = transformer.rotary_embed.forward_from_seq_len(50)

    def outcome():
        y = layer(x, mask=mask, rope=rope)
        return [y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])]

    official = outcome()
    layer.processor = RowAttention()
    for ours, theirs in zip(outcome(), official, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_without_sway_the_loss_is_the_official_one():
    """The same random numbers through `CFM.forward` and through ours, for rows of unequal length."""
    from pvlib import backbone

    model = backbone.build(SMALL)
    torch.nn.init.normal_(model.transformer.proj_out.weight)  # zero at first, and then every loss is the same
    mel, tokens = torch.randn(3, 40, model.cfm.num_channels), torch.tensor([40, 25, 33])
    text = model.encode(["the red fox", "a cat", "we go on"])
    for seed in range(8):  # with and without the clip, with and without the text
        torch.manual_seed(seed)
        random.seed(seed)
        official, _, _ = model.cfm(mel, text=text, lens=tokens)
        torch.manual_seed(seed)
        random.seed(seed)
        torch.testing.assert_close(trainer.flow_loss(model.cfm, mel, text, tokens, sway_coef=None), official)


def test_sway_puts_more_times_where_there_is_mostly_noise(monkeypatch):
    """P(1 - cos(pi u / 2) < 0.15) = 2 acos(0.85) / pi, 35 %."""
    from pvlib import backbone

    seen = []
    cfm = backbone.build(SMALL).cfm
    monkeypatch.setattr(cfm.transformer, "forward", lambda **given: seen.append(given["time"]) or given["x"])
    mel = torch.zeros(4000, 2, cfm.num_channels)
    trainer.flow_loss(cfm, mel, torch.zeros(4000, 1, dtype=torch.long), torch.full((4000,), 2))
    assert float((seen[0] < 0.15).float().mean()) == pytest.approx(2 * math.acos(0.85) / math.pi, abs=0.03)


def test_without_a_recogniser_it_says_so(toy_corpus):
    hub.weights_path("recognizer", profile()).unlink()
    with pytest.raises(hub.WeightsError, match="recognizer"):
        trainer.train(profile(), steps=1)


def hearing() -> tuple[trainer.backbone.Backbone, trainer.Hearing, tuple[torch.Tensor, ...]]:
    torch.manual_seed(3)
    model = trainer.backbone.build(replace(SMALL, depth=2))
    module = trainer.Hearing(model, hub.load_recognizer(profile(), torch.device("cpu")))
    frames = torch.tensor([41, 30])
    mel = torch.randn(2, 41, 100)
    mel[1, 30:] = 0.0
    tokens = model.cfm.tokens(frames)
    text = model.encode(["red fox", "fox"])
    with model.aligned(model.transformer.text_embed.align(text, tokens, 21)):
        loss = trainer.flow_loss(model.cfm, model.cfm.stacked(mel), text, tokens)
    return model, module, (mel, frames, tokens, loss)


def test_hearing_reaches_the_first_half_of_the_backbone_and_leaves_the_recogniser():
    model, module, (mel, frames, tokens, _) = hearing()
    before = [p.clone() for p in module._ears[0].parameters()]
    module(mel, frames, tokens).backward()
    moved = [block.attn_norm.linear.weight.grad for block in model.transformer.transformer_blocks]
    assert moved[0].abs().max() > 0 and moved[1] is None
    assert all(
        torch.equal(a, b) and b.grad is None
        for a, b in zip(before, module._ears[0].parameters(), strict=True)
    )
    assert not any("ears" in key for key in module.state_dict())


def test_hearing_is_content_with_the_recognisers_own_features():
    _, module, (mel, frames, tokens, _) = hearing()
    ears = module._ears[0]
    inside, steps = ears.hidden(mel, frames, 1)
    rows = torch.cat([inside[0, : steps[0]], inside[1, : steps[1]]])
    inside = (inside - rows.mean(0)) / rows.std(0)
    stretched = torch.stack(
        [inside[:, (2 * t + 1) // 4] for t in range(21)], 1
    )  # two frames a token, four a step
    module.project = torch.nn.Module()
    module.project.forward = lambda made: stretched * 3.0
    assert module(mel, frames, tokens) < 1e-6


def test_every_parameter_has_one_optimiser():
    model, module, _ = hearing()
    muon, adam = trainer.optimisers(model, module)
    taken = [id(p) for o in (muon, adam) for g in o.param_groups for p in g["params"]]
    assert sorted(taken) == sorted(id(p) for p in (*model.parameters(), *module.parameters()))
    assert (
        len(muon.param_groups[0]["params"]) == 2 * 6
    )  # q, k, v, out and two of the feed-forward, in two blocks
