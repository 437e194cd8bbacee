"""The audit: small files of the released form, figures worked out by hand, and every way a checkout can be wrong."""

from __future__ import annotations

import copy
import json
import math

import pandas as pd
import pytest

from pvlib import cli
from pvlib.study import audit, ledger, released
from pvlib.study.released import ReleasedError

OURS, XTTS, COSY = (source.system for source in released.SYSTEMS)
WORDS = (3, 7, 20, 30)  # ultra-short, short, long, long


def sample(
    idx: int, words: int, secs: float, wer: float, time_ms: float = 1000, seconds: float = 2.0
) -> dict:
    return {
        "secs": secs,
        "wer": wer,
        "time_ms": time_ms,
        "idx": idx,
        "text_len": words,
        "gen_length_sec": seconds,
    }


def samples(secs, wer, times=(1000,) * 4, seconds=(2.0,) * 4) -> list[dict]:
    return [sample(3 * k, *values) for k, values in enumerate(zip(WORDS, secs, wer, times, seconds))]


def contents() -> dict[str, dict]:
    """The three files: four samples of each system; the last of ours failed and lacks its `idx`, as theirs do."""
    ours = samples([0.2, 0.6, 0.7, 0.0], [1.0, 0.5, 0.1, 1.0], [1000, 1000, 2000, 0], [1.0, 2.0, 5.0, 0.0])
    ours[3]["error"] = "sizes differ"
    del ours[3]["idx"]
    for record in ours[:3]:
        record |= {"text": "So it goes", "target_length": 99, "speaker_name": "17"}
    xtts = [record | {"status": "ok"} for record in samples([0.3, 0.3, 0.36, 0.36], [0.18, 0.14, 0.05, 0.15])]
    cosy = [record | {"status": "ok"} for record in samples([0.4] * 4, [0.6, 0.8, 0.51, 0.5])]
    full = samples([0.1, 0.2, 0.3, 0.4], [0.0, 0.2, 0.4, 0.6])
    return {
        released.EVALUATION: {
            "metadata": {"n_samples": 4, "version": "v10.0"},
            "baseline_results": [],
            "personavoice_results": ours,
        },
        released.BASELINES: {
            "metadata": {"n_samples": 4},
            "results": {
                "cosyvoice": {"n_samples": 4, "results": cosy},
                "xtts": {"n_samples": 4, "results": xtts},
            },
        },
        released.ABLATION: {
            "full_v8": full,
            "wo_td_cfg": samples([0.2, 0.2, 0.2, 0.2], [0.0, 0.2, 0.4, 0.6]),
            "wo_ibop": samples([0.0, 0.0, 0.0, 0.0], [0.1, 0.1, 0.5, 0.5]),
            "wo_sbm": samples([0.1, 0.2, 0.3, 0.4], [0.2, 0.0, 0.6, 0.8]),
        },
    }


def write(folder, files: dict[str, object]):
    (folder / "results").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture
def checkout(tmp_path):
    return write(tmp_path / "paper", contents())


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """The audit of the whole files; tests only look at it."""
    return audit.audit(write(tmp_path_factory.mktemp("paper"), contents()))


def figure(
    figures: pd.DataFrame, system: str, metric: str, stratum: str = "overall", how: str = ""
) -> pd.Series:
    found = figures[
        (figures["system"] == system) & (figures["metric"] == metric) & (figures["stratum"] == stratum)
    ]
    found = found[found["how"] == how] if how else found
    assert len(found) == 1, found
    return found.iloc[0]


# Numbers worked out by hand


@pytest.mark.parametrize(
    ("system", "metric", "stratum", "how", "n", "value"),
    [
        (OURS, "secs_ecapa_clip", "overall", audit.MEAN, 4, (0.2 + 0.6 + 0.7 + 0.0) / 4),
        (OURS, "secs_ecapa_clip", "overall", audit.HEARD, 3, 0.5),
        (OURS, "secs_ecapa_clip", "long", audit.MEAN, 2, 0.35),
        (OURS, "secs_ecapa_clip", "long", audit.HEARD, 1, 0.7),
        (OURS, "secs_ecapa_clip", "short", audit.MEAN, 2, 0.4),
        (OURS, "wer_capped", "overall", "", 4, 0.65),
        (OURS, "wer_capped", "long", "", 2, 0.55),
        (OURS, "wer_capped", "short", "", 2, 0.75),
        (OURS, "wer_capped", "ultra-short", "", 1, 1.0),
        (OURS, "wer_capped", "5-8 words", "", 1, 0.5),
        (OURS, "cfr", "overall", "", 4, 0.5),  # exactly one half is no catastrophe
        (OURS, "cfr", "short", "", 2, 0.5),
        (OURS, "cfr", "5-8 words", "", 1, 0.0),
        (OURS, "rtf", "overall", audit.TOTALS, 3, 4 / 8),
        (OURS, "rtf", "overall", audit.PER_SAMPLE, 3, (1 + 0.5 + 0.4) / 3),
        (XTTS, "secs_ecapa_clip", "overall", audit.MEAN, 4, 0.33),
        (XTTS, "wer_capped", "short", "", 2, 0.16),
        (XTTS, "wer_capped", "long", "", 2, 0.1),
        (XTTS, "rtf", "overall", audit.TOTALS, 4, 0.5),
        (COSY, "cfr", "overall", "", 4, 0.75),
        (COSY, "cfr", "long", "", 2, 0.5),
        ("full_v8", "wer_capped", "overall", "", 4, 0.3),
        ("wo_sbm", "wer_capped", "overall", "", 4, 0.4),
        ("full_v8", "cfr", "overall", "", 4, 0.25),
    ],
)
def test_figures_are_those_worked_out_by_hand(audited, system, metric, stratum, how, n, value):
    found = figure(audited.figures, system, metric, stratum, how)
    assert found["n"] == n and found["value"] == pytest.approx(value, abs=1e-12)
    assert found["failed"] == (system == OURS and stratum in ("overall", "long"))


def test_verdicts_hold_the_printed_numbers_against_the_figures(audited):
    figures = audited.figures
    right = figure(figures, XTTS, "wer_capped", "short")  # the paper prints 0.16; its real file gives 0.279
    assert (right["printed"], right["verdict"]) == ("0.16", "supported")
    assert (right["quoted"], right["quote_verdict"]) == ("0.279", "not supported")
    wrong = figure(figures, XTTS, "wer_capped")
    assert (wrong["printed"], wrong["verdict"]) == ("0.1296", "not supported")
    estimate = figure(figures, COSY, "cfr")
    assert (estimate["printed"], estimate["verdict"]) == ("~30%*", "not supported")
    ranged = figure(figures, OURS, "rtf", how=audit.PER_SAMPLE)
    assert (ranged["printed"], ranged["verdict"]) == ("0.55-0.66", "supported")
    nothing = figure(figures, OURS, "wer_capped", "5-8 words")
    assert (nothing["printed"], nothing["verdict"], nothing["claims"]) == ("", "", "")


@pytest.mark.parametrize(
    ("text", "value", "verdict"),
    [
        ("0.1928", 0.19284, "supported"),
        ("0.1928", 0.19286, "not supported"),
        ("13.5%", 0.1354, "supported"),
        ("13.5%", 0.1356, "not supported"),
        ("~5%*", 0.055, "supported"),
        ("~30%*", 0.315, "not supported"),
        ("<0.05", -0.049, "supported"),
        ("<0.05", -0.05, "not supported"),
    ],
)
def test_a_number_is_supported_within_its_rounding(text, value, verdict):
    assert audit.compare(text, value) == verdict


def test_the_ablation_is_tested_in_pairs_with_holms_correction(audited):
    figures = audited.figures

    def line(name, metric, how):
        return figure(figures, f"full_v8 - {name}", metric, how=how)

    # differences -0.1, 0, 0.1, 0.2: mean 0.05, sd 0.12910, t = 0.77460 on 3 degrees of freedom
    t = 0.05 / (math.sqrt(0.05 / 3) / 2)
    assert line("wo_td_cfg", "secs_ecapa_clip", audit.DIFFERENCE)["value"] == pytest.approx(0.05)
    assert line("wo_td_cfg", "secs_ecapa_clip", audit.EFFECT)["value"] == pytest.approx(t / 2)
    first = line("wo_td_cfg", "secs_ecapa_clip", audit.P)
    angle = math.atan(t / math.sqrt(3))  # Student's distribution with 3 degrees of freedom in closed form
    assert first["value"] == pytest.approx(1 - 2 / math.pi * (angle + math.sin(angle) * math.cos(angle)))
    assert (first["printed"], first["claims"]) == ("0.41", "td-cfg-p-values")
    assert line("wo_td_cfg", "wer_capped", audit.P)["printed"] == "0.74"
    same = line("wo_sbm", "secs_ecapa_clip", audit.P)
    assert same["value"] == 1 and line("wo_sbm", "secs_ecapa_clip", audit.EFFECT)["verdict"] == "supported"

    tests = figures[figures["how"] == audit.P].sort_values("value")
    assert len(tests) == 6
    steps = [min(1, (6 - rank) * p) for rank, p in enumerate(tests["value"])]
    expected = [max(steps[: rank + 1]) for rank in range(6)]
    assert list(tests["p_holm"]) == pytest.approx(expected)
    assert figures.loc[figures["how"] != audit.P, "p_holm"].isna().all()


def test_samples_are_paired_by_their_idx_and_not_by_their_place(tmp_path):
    files = contents()
    before = audit.audit(write(tmp_path / "a", files)).figures
    files[released.ABLATION]["wo_ibop"].reverse()
    pd.testing.assert_frame_equal(audit.audit(write(tmp_path / "b", files)).figures, before)
    failed = files[released.ABLATION]["wo_ibop"][0]
    failed["error"] = "out of memory"
    del failed["idx"], failed["secs"]
    found = audit.audit(write(tmp_path / "c", files)).figures
    assert figure(found, "full_v8 - wo_ibop", "secs_ecapa_clip", how=audit.P)["n"] == 3


def test_every_claim_that_is_named_is_in_the_ledger_and_rests_on_that_number(audited):
    figures = audited.figures
    claims = {claim.id: claim for claim in ledger.load()}
    named = {name for cell in figures["claims"] for name in cell.split(", ") if cell}
    assert named <= set(claims)
    bearing = figure(figures, XTTS, "wer_capped", "short")["claims"]
    assert bearing == "wer-overall-xtts, wer-short-xtts"  # the first one through the quoted figure
    effect = figure(figures, "full_v8 - wo_ibop", "wer_capped", how=audit.EFFECT)
    assert effect["claims"] == "ibop-no-effect-wer"
    recomputed = {
        claim.id
        for claim in claims.values()
        if "_recomputed/" in str(claim.check.get("against", "")) and claim.kind == "document"
    }
    assert recomputed and recomputed <= named


def test_what_the_files_do_not_hold_is_said(audited):
    absent = audited.figures[audited.figures["verdict"] == audit.NO_DATA]
    assert absent["value"].isna().all() and (absent["n"] == 0).all()
    assert set(absent["system"]) >= {"F5-TTS Official", XTTS} and set(absent["metric"]) >= {"utmos", "rtf"}
    f5 = absent[(absent["system"] == "F5-TTS Official") & (absent["metric"] == "wer_capped")]
    assert set(f5["stratum"]) == {"overall", "long", "short"} and "wer-long-f5" in ", ".join(f5["claims"])
    printed = audited.figures[
        (audited.figures["printed"] != "") & audited.figures["system"].isin([OURS, XTTS, COSY])
    ]
    pairs = set(zip(printed["system"], printed["metric"]))
    assert {(system, metric) for system in (OURS, XTTS, COSY) for metric in ("cfr", "rtf", "utmos")} <= pairs


def test_the_summary_names_failures_and_disagreement(audited):
    text = "\n".join(audit.summary(audited))
    assert "Failed samples: 1." in text
    assert f"{OURS}, personavoice_results[3] (30 words): sizes differ" in text
    assert f"wer_capped of {XTTS}, overall: 0.1296" in text and f"{XTTS}, short: 0.16" not in text
    assert "version v10.0" in text


def test_a_failed_sample_without_a_length_counts_overall_only(tmp_path):
    files = contents()
    lost = files[released.BASELINES]["results"]["xtts"]["results"][0]
    for key in ("secs", "wer", "text_len", "time_ms", "gen_length_sec"):
        del lost[key]
    lost["status"] = "timeout"
    found = audit.audit(write(tmp_path, files))
    assert figure(found.figures, XTTS, "wer_capped")["value"] == pytest.approx((1 + 0.14 + 0.05 + 0.15) / 4)
    assert figure(found.figures, XTTS, "cfr")["value"] == 0.25
    assert figure(found.figures, XTTS, "secs_ecapa_clip")["n"] == 3
    assert found.figures.query("system == @XTTS and stratum == 'ultra-short'").empty
    assert "results.xtts.results[0] (length unknown): status timeout" in audit.failures(found)[1]


# Checkouts that cannot be audited


def first(files: dict) -> dict:
    return files[released.EVALUATION]["personavoice_results"][1]


DAMAGES = {
    "a value that is NaN": (lambda f: first(f).update(wer=math.nan), "wer is NaN, not a number"),
    "infinite": (lambda f: first(f).update(time_ms=math.inf), "time_ms is Infinity, not a number"),
    "text for a number": (lambda f: first(f).update(secs="0.3"), 'secs is "0.3", not a number'),
    "a truth value": (lambda f: first(f).update(wer=True), "wer is true, not a number"),
    "null": (lambda f: first(f).update(wer=None), "wer is null, not a number"),
    "a huge whole number": (lambda f: first(f).update(time_ms=10**400), "time_ms is 1000"),
    "no cosine": (lambda f: first(f).update(secs=1.2), "secs is 1.2, but can only be"),
    "negative": (lambda f: first(f).update(wer=-0.1), "wer is -0.1, but can only be at least 0"),
    "half a word": (lambda f: first(f).update(text_len=3.5), "text_len is 3.5, not a whole number"),
    "no words": (lambda f: first(f).update(text_len=0), "text_len is 0, but can only be at least 1"),
    "no speech": (lambda f: first(f).update(gen_length_sec=0.0), "gen_length_sec is 0"),
    "a key is missing": (lambda f: first(f).pop("wer"), "has no wer, and no error explains it"),
    "twice": (lambda f: first(f).update(idx=0), "[1] has the idx 0 of personavoice_results[0]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_value_is_named_with_file_and_record(damage, tmp_path):
    spoil, told = DAMAGES[damage]
    files = contents()
    spoil(files)
    with pytest.raises(ReleasedError) as caught:
        audit.audit(write(tmp_path, files))
    message = str(caught.value)
    assert told in message and str(tmp_path / released.EVALUATION) in message
    assert "personavoice_results[1]" in message


def spoil_first_list(files, value):
    files[released.EVALUATION]["personavoice_results"] = value


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: f[released.EVALUATION].pop("personavoice_results"), "has no personavoice_results"),
        (lambda f: f[released.BASELINES].update(results=[]), "has no results.xtts"),
        (lambda f: f[released.BASELINES]["results"]["xtts"].pop("results"), "has no results.xtts.results"),
        (lambda f: f[released.ABLATION].pop("wo_sbm"), "has no wo_sbm"),
        (lambda f: f.update({released.EVALUATION: [1, 2]}), "has no personavoice_results"),
        (lambda f: spoil_first_list(f, []), "personavoice_results is no list of samples"),
        (lambda f: spoil_first_list(f, {"a": 1}), "personavoice_results is no list of samples"),
        (lambda f: spoil_first_list(f, [1, 2, 3, 4]), "personavoice_results[0] is no record"),
        (
            lambda f: f[released.EVALUATION]["personavoice_results"].pop(),
            "holds 3 samples, but the file says 4",
        ),
        (lambda f: f[released.BASELINES]["results"]["xtts"]["results"].pop(), "holds 3 samples"),
        (
            lambda f: f[released.ABLATION]["wo_ibop"][2].update(text_len=21),
            "idx 6 has 20 words in full_v8[2] and 21",
        ),
        (lambda f: [s.update(idx=s["idx"] + 1) for s in f[released.ABLATION]["wo_ibop"]], "cannot be tested"),
        (lambda f: [s.update(wer=s["wer"] / 2) for s in f[released.ABLATION]["wo_sbm"]], None),
    ],
)
def test_files_of_another_form_are_refused(spoil, told, tmp_path):
    files = contents()
    spoil(files)
    write(tmp_path, files)
    if told is None:
        audit.audit(tmp_path)
        return
    with pytest.raises(ReleasedError, match="(?s).*") as caught:
        audit.audit(tmp_path)
    assert told in str(caught.value) and str(tmp_path / "results") in str(caught.value)


# The command


def error(capsys, *arguments: object) -> str:
    assert cli.main(["audit", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("pvlib: error: ") and captured.err.count("\n") == 1
    return captured.err


def test_the_command_prints_the_table_and_ends_well_though_numbers_disagree(checkout, capsys):
    assert cli.main(["audit", "--reference", str(checkout)]) == 0
    shown = capsys.readouterr().out
    assert "not supported" in shown and "wer-short-xtts" in shown and "sizes differ" in shown
    assert "0.6333" in shown  # the mean of the real-time factors


def test_the_table_is_written_whole_and_read_back_equal(checkout, tmp_path, capsys):
    out = tmp_path / "new" / "audit.csv"
    assert cli.main(["audit", "--reference", str(checkout), "--csv", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    table = pd.read_csv(out)
    assert tuple(table.columns) == audit.COLUMNS and len(table) == len(facts["figures"])
    assert list(table["value"].dropna()) == [
        line["value"] for line in facts["figures"] if line["value"] is not None
    ]
    assert facts["summary"] == audit.summary(audit.audit(checkout))
    assert [path.name for path in out.parent.iterdir()] == ["audit.csv"]


def test_the_command_refuses_what_is_no_checkout_in_one_line(checkout, tmp_path, capsys):
    assert "does not exist; give the top folder" in error(capsys, "--reference", tmp_path / "absent")
    (tmp_path / "file").write_text("")
    assert "is no folder" in error(capsys, "--reference", tmp_path / "file")
    (tmp_path / "empty").mkdir()
    told = error(capsys, "--reference", tmp_path / "empty")
    assert released.EVALUATION in told and "is missing" in told
    broken = checkout / released.BASELINES
    whole = broken.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\xff\xfe", b"version https://git-lfs", b"[" * 200_000):
        broken.write_bytes(content)
        told = error(capsys, "--reference", checkout)
        assert str(broken) in told and "cannot be read as JSON" in told


def test_the_files_of_the_checkout_are_never_written(checkout, tmp_path, capsys):
    kept = {file: (checkout / file).read_bytes() for file in released.FILES}
    told = error(capsys, "--reference", checkout, "--csv", checkout / released.ABLATION)
    assert "is one of the files to be audited" in told
    (tmp_path / "file").write_text("")
    assert "cannot write" in error(capsys, "--reference", checkout, "--csv", tmp_path / "file" / "a.csv")
    assert "cannot write" in error(capsys, "--reference", checkout, "--csv", tmp_path)
    assert {file: (checkout / file).read_bytes() for file in released.FILES} == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "paper"]
    assert sorted(path.name for path in (checkout / "results").iterdir()) == sorted(
        file.partition("/")[2] for file in released.FILES
    )


def test_one_changed_number_changes_the_verdict(tmp_path):
    files = contents()
    changed = copy.deepcopy(files)
    changed[released.BASELINES]["results"]["xtts"]["results"][0]["wer"] += 0.02
    before, after = (
        figure(audit.audit(write(tmp_path / name, content)).figures, XTTS, "wer_capped", "short")["verdict"]
        for name, content in (("a", files), ("b", changed))
    )
    assert (before, after) == ("supported", "not supported")
