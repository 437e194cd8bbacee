"""Tables of variants on made-up rows: signs, corrections, the paper's words beside them, verdicts that turn."""

from __future__ import annotations

import re

import nbformat
import numpy as np
import pandas as pd
import pytest

from pvlib import paths, systems
from pvlib.config import MINI
from pvlib.study import ablations, ledger, look, manifest, plots, reported, statistics

SECS = ("secs_ecapa_clip", "secs_ecapa_speaker", "secs_ge2e_clip", "secs_ge2e_speaker")


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """The pipeline and all variants on 48 utterances; without VAD is worse by 0.3, AM-ODE the very same."""
    sample = manifest.read("mini-test").sample(48)
    rng = np.random.default_rng(0)
    base = {name: rng.normal(0.6, 0.1, 48) for name in (*SECS, "wer")}
    tables = []
    for system in (ablations.SYSTEM, *ablations.variants()):
        short = ablations.variants().get(system, "")
        shift = 0.0 if short in ("", "AM-ODE") else rng.normal(0, 0.02, 48)
        if short == "without VAD":
            shift = shift - 0.3
        values = {name: base[name] + shift for name in SECS} | {"wer": np.abs(base["wer"] - shift)}
        own = sample[["utterance", "speaker", "words", "bucket", "seed", "text"]].assign(
            **values, system=system
        )
        constant = {"reference_seconds": 1.0, "reference_text": "a", "hypothesis": "b", "dnsmos": 3.0}
        constant |= {"generated_seconds": 2.0, "synthesis_seconds": 1.0, "error": ""}
        tables.append(own.assign(wer_capped=own["wer"].clip(upper=1), **constant))
    return pd.concat(tables, ignore_index=True)


def test_a_module_that_is_missed_is_found_and_the_rest_is_not(rows):
    found = ablations.table(rows, ablations.MODULES)
    assert list(found["variant"].unique()) == list(ablations.MODULES)
    shown = found[found["p_holm"] < 0.05]
    assert set(shown["variant"]) == {"without VAD"} and set(shown["metric"]) == set(ablations.METRICS)
    secs, wer = (shown.set_index("metric").loc[name] for name in ablations.METRICS)
    assert secs["difference"] == pytest.approx(-0.3, abs=0.01) and wer["difference"] > 0
    assert secs["difference"] == pytest.approx(secs["with_variant"] - secs["pipeline"])
    assert secs["low"] < -0.3 < secs["high"] and secs["d"] < -5 and secs["n"] == 48
    np.testing.assert_allclose(found["p_holm"], statistics.holm(found["p"]))
    assert "2 hold after Holm's correction" in ablations.summary(found, "Modules")
    assert "`secs_ecapa_clip` -0.3" in ablations.summary(found, "Modules")


def test_gains_and_losses_of_the_variants_are_told_apart():
    columns = ["variant", "metric", "difference", "n", "differ", "d", "p", "p_holm"]
    lines = [
        ("closer", "secs_ge2e_speaker", 0.02, 48, 48, 0.5, 0.001, 0.01),
        ("farther", "secs_ecapa_clip", -0.03, 48, 12, -0.5, 0.001, 0.01),
        ("clearer", "wer_capped", -0.04, 48, 48, float("nan"), 0.001, 0.01),
        ("garbled", "first_lost", 0.05, 48, 48, 0.5, 0.001, 0.01),
        ("unsure", "wer_capped", 0.06, 48, 48, 0.2, 0.04, 0.2),
        ("even", "wer_capped", 0.0, 48, 48, 0.0, 0.001, 0.01),
    ]
    found = pd.DataFrame(lines, columns=columns)
    told = ablations.summary(found, "All")
    better, worse = told.partition("**The variant is better** in 2: ")[2].split(
        "**The variant is worse** in 2: "
    )
    assert better.startswith("closer, `secs_ge2e_speaker` +0.020 (d = +0.50, Holm's p = 0.01); clearer, ")
    assert "-0.040 (d is not defined" in better and "unsure" not in told
    assert "; 12 of 48 pairs differ, by -0.120);" in worse and worse.count("pairs differ") == 1
    assert worse.startswith("farther, `secs_ecapa_clip` -0.030") and "garbled, `first_lost` +0.050" in worse
    assert "**The variant is of the same mean** in 1: even" in told
    assert "better**" not in ablations.summary(found.iloc[[1]], "One")
    assert "0 hold after Holm's correction. With 48 pairs" in ablations.summary(found.iloc[[4]], "None")


def test_every_retired_module_of_the_papers_table_is_explained_in_the_notebook():
    notebook = nbformat.read(paths.NOTEBOOKS / "07_ablations.ipynb", as_version=4)
    (cell,) = (cell for cell in notebook.cells if cell.source.startswith("## Retired modules"))
    for module in ablations.RETIRED:
        assert re.search(rf"^\* \*{re.escape(module)}\*[:,]", cell.source, re.MULTILINE | re.IGNORECASE), (
            module
        )


def test_the_identity_is_counted_row_by_row(rows):
    assert ablations.identical(rows, "AM-ODE").startswith("AM-ODE: 0 of 48 rows differ")
    assert ablations.identical(rows, "SBM").startswith("SBM: 48 of 48 rows differ")
    (sbm,) = ablations.table(rows, ["SBM"], ["wer_capped"]).to_dict("records")
    (line,) = ablations.table(rows, ["AM-ODE"], ["wer_capped"]).to_dict("records")
    assert (sbm["differ"], line["differ"]) == (48, 0)
    assert (line["difference"], line["d"], line["p"]) == (0, 0, 1)


def test_true_words_that_shorten_the_speech_are_told_apart_from_those_that_do_not(rows):
    """48 clips: 8 heard as said; of the others half come out at half the length, and lose 0.4 of their words."""
    ours, told = (
        rows[rows["system"] == name].reset_index(drop=True).assign(wer_capped=0.1)
        for name in (ablations.SYSTEM, ablations.system_of()["true transcript"])
    )
    told.loc[8:, "reference_text"], told.loc[:7, "reference_text"] = "Abc!", "A."
    told.loc[28:, "generated_seconds"], told.loc[28:, "wer_capped"] = 1.0, 0.5
    said = ablations.paced(pd.concat([ours, told]))
    assert "In 8 of 48 clips the words heard are the true ones, and WER changes by +0.000" in said
    assert "the other 40 the true words have 3.0 letters where 1.0 are heard" in said
    assert "by +0.400 in the 20 that come out shorter by more than a tenth, by +0.000 in the rest" in said
    assert "rho -1.00" in said
    one, other = (t.assign(reference_text=text) for t, text in ((ours, "Two-ten, é b."), (told, "210 É c.")))
    assert "have 2.0 letters where 8.0 are heard" in ablations.paced(pd.concat([one, other]))
    one["reference_text"] = "Two-ten, dr. c!"
    other["reference_text"] = "two ten doctor c. "
    assert ablations.paced(pd.concat([one, other])).startswith("Fewer than 6 clips")
    told["generated_seconds"] = np.linspace(1.9, 2.1, 48)
    assert "tenth" not in ablations.paced(pd.concat([ours, told]))
    assert ablations.paced(ours).startswith("Fewer than 6 clips")


def test_few_pairs_give_means_and_no_test(rows):
    few = rows[rows["utterance"].isin(rows["utterance"].unique()[:5])]
    found = ablations.table(few, ablations.ORACLES)
    assert found[["p", "d", "p_holm"]].isna().all(axis=None) and (found["n"] == 5).all()
    assert found["difference"].notna().all()
    assert "take more utterances" in ablations.summary(found, "Oracles")
    assert plots.effects(found, 0.1).axes


def test_a_failed_synthesis_is_left_out_of_similarity_and_counted(rows):
    broken = rows.copy()
    broken.loc[broken["system"].str.contains("sbm").to_numpy().nonzero()[0][:3], list(SECS)] = float("nan")
    found = ablations.table(broken, ["SBM"]).set_index("metric")
    assert found.loc["secs_ecapa_clip", ["n", "left_out"]].tolist() == [45, 3]
    assert found.loc["wer_capped", ["n", "left_out"]].tolist() == [48, 0]


def test_the_papers_table_stands_beside_ours(rows):
    shorts = [short for names in ablations.RETIRED.values() for short in names]
    untrained = rows[rows["system"] != ablations.system_of()["duration predictor"]]
    table = ablations.retired(ablations.table(untrained, shorts))
    assert set(table["module"]) == set(reported.read("retired_modules")["system"])
    ibop = table[table["module"] == "IBOP"].iloc[0]
    assert (ibop["p (paper)"], ibop["d (paper)"], ibop["status (paper)"]) == (
        "0.85 / 0.51",
        "<0.05",
        "Removed",
    )
    assert table[table["module"] == "Best-of-N"]["variant"].nunique() == 2
    waiting = table[table["module"] == "Duration Predictor"].iloc[0]
    assert waiting["variant"] == "not measured" and np.isnan(waiting["d"])


def test_claims_of_the_notebook_get_verdicts_from_these_rows(rows):
    board = ablations.claims("mini", rows).set_index("id")
    assert board.loc["vad-helps", "verdict"] == "supported"
    assert board.loc["am-ode-identity", "verdict"] == "supported"
    assert board.loc["film-validated", "verdict"] == "untested"  # its adapter is not trained
    worse = rows.copy()
    own = worse["system"] == ablations.SYSTEM
    worse.loc[own, "secs_ecapa_clip"] -= 0.9
    worse.loc[own & (worse["utterance"] == worse["utterance"].iloc[0]), "hypothesis"] = "else"
    turned = ablations.claims("mini", worse).set_index("id")
    assert turned.loc["vad-helps", "verdict"] == turned.loc["am-ode-identity", "verdict"] == "contradicted"
    with pytest.raises(ledger.LedgerError, match="has no row of"):
        ablations.claims("mini", rows.iloc[:-1])


def test_every_variant_changes_one_thing_of_the_pipeline():
    for name in ablations.variants():
        base, parameters = systems.parse(name)
        assert base == ablations.SYSTEM and 1 <= len(parameters) <= 2 or name == systems.SPREAD


def test_variants_of_the_adapters_stand_against_the_pipeline_with_them(rows, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    assert ablations.adapter_variants("mini") == {} and ablations.adapters(rows).empty
    weights = tmp_path / "mini" / "adapters.safetensors"
    weights.parent.mkdir()
    weights.touch()
    names = {short: name for name, short in ablations.adapter_variants("mini").items()}
    assert set(names) == {ablations.WITH_ADAPTERS, *ablations.ADAPTERS}
    for name in names.values():
        assert systems.parse(name)[1]["use_adapters"] is True
    own = rows[rows["system"] == ablations.SYSTEM]
    wer = own["wer_capped"] + np.linspace(0.4, 0.6, len(own))
    worse = own.assign(system=names["without OES"], wer_capped=wer)
    found = ablations.adapters(pd.concat([rows, own.assign(system=names[ablations.WITH_ADAPTERS]), worse]))
    assert set(found["variant"]) == {"without OES"}
    assert found.set_index("metric").loc["wer_capped", "difference"] == pytest.approx(0.5)


def test_who_cannot_be_told_the_transcript_is_left_out(monkeypatch):
    told = {name for name in ablations.system_names(MINI) if "oracle_transcript" in name}
    assert told == {"personavoice@oracle_transcript=True"}
    kept = [name for name in ablations.system_names(MINI) if name not in told]
    monkeypatch.setattr(ablations.manifests, "word_times", lambda name: {})  # as LibriTTS
    assert ablations.system_names(MINI) == kept


def test_a_share_is_ablated():
    assert [ablations.size(MINI, n) for n in (1, 4, 40, 199, 200)] == [1, 1, 1, 1, 25]


@pytest.mark.parametrize("there, expected", [(None, 25), (pd.DataFrame(), 200)])
def test_all_are_ablated_where_all_rows_are_there(monkeypatch, there, expected):
    asked = []
    monkeypatch.setattr(ablations, "finished_rows", lambda *a, **options: asked.append((a, options)) or there)
    assert ablations.count(MINI, 200, seed=3) == expected
    assert asked == [((MINI, ablations.system_names(MINI), 200), {"seed": 3})]


def test_rows_are_asked_for_by_name(monkeypatch):
    asked = {}

    def evaluate(profile, names, samples, **options):
        asked.update(names=names, samples=samples, **options)
        return pd.DataFrame()

    monkeypatch.setattr(ablations, "evaluate", evaluate)
    monkeypatch.setattr(ablations, "finished_rows", lambda *a, **options: None)
    ablations.rows("mini", 40, seed=1)
    others = systems.present("mini", ablations.variants())
    assert asked["names"] == ["personavoice", *others, *ablations.adapter_variants("mini")]
    assert len(others) > 15 and (asked["samples"], asked["seed"]) == (1, 1)
    ablations.rows("mini", 40, utterances=7)
    assert asked["samples"] == 7


def test_effects_are_drawn_where_they_were_found(rows, tmp_path):
    found = ablations.table(rows, ablations.MODULES)
    figure = plots.effects(found, 0.1)
    assert len(figure.axes) == len(ablations.METRICS)
    drawn = [
        x
        for line in figure.axes[0].lines
        if line.get_marker() == look.look("personavoice").marker
        for x in line.get_xdata()
    ]
    assert np.allclose(sorted(drawn), sorted(found.loc[found["metric"] == "secs_ecapa_clip", "d"]))
    assert len(look.keep(figure, "effects", tmp_path).data) > 3000
