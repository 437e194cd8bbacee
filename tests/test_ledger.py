"""The ledger: what a claim must look like, and verdicts that follow from numbers and rows, and change with them."""

from __future__ import annotations

from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
import yaml

from pvlib import config, paths, systems
from pvlib.config import MINI
from pvlib.metrics.wer import wer
from pvlib.study import (
    ablations,
    checks,
    facts,
    ledger,
    modality,
    pairs,
    printed,
    reported,
    statistics,
    sweeps,
    tables,
)
from pvlib.study import manifest as manifests
from pvlib.study import rows as row_files
from pvlib.study.claims import VERDICTS, WHO, Claim, Evidence, number
from pvlib.study.ledger import LedgerError
from pvlib.study.manifest import Manifest
from pvlib.systems.f5 import official

NOTHING = Evidence("mini")
# facts that read a model of full size or another package's weights
HEAVY = {
    "backbone blocks",
    "parameters of a block",
    "parameters of the backbone",
    "size of a GE2E embedding",
    "the backbone has attention from sound to text",
    "the GE2E encoder is recurrent",
    "a GE2E embedding is the mean of its windows",
}


@pytest.fixture(scope="module")
def claims() -> list[Claim]:
    return ledger.load()


def is_light(claim: Claim) -> bool:
    texts = [
        *claim.check.get("numbers", {}).values(),
        claim.check.get("against", ""),
        claim.check.get("name", ""),
    ]
    return not {text.removeprefix("counted:") for text in texts} & HEAVY


@pytest.fixture(scope="module")
def board(claims) -> pd.DataFrame:
    """Verdicts without any row, of all claims that need no large model."""
    return ledger.scoreboard(NOTHING, claims, only=[c.id for c in claims if is_light(c)]).set_index("id")


# The committed file


def test_the_ledger_covers_both_seeds(claims):
    assert len(claims) >= 60
    assert {claim.source for claim in claims} == set(ledger.SOURCES)
    places = " ".join(claim.where for claim in claims)
    for core in ("Core A, LAAG", "Core B, OES", "Core C, CEAG", "Core D, FiLM", "Core E, front end"):
        assert core in places


def test_every_reported_number_of_the_paper_has_its_claim(claims):
    """All cells of the key results, all parameters and every line of the retired modules."""
    there = {claim.reported for claim in claims}
    for table in ("key_results", "parameters", "retired_modules"):
        for entry in reported.read(table).itertuples():
            if "recomputed" not in entry.metric:
                assert f"{table}/{entry.metric}/{entry.system}" in there


def test_a_quote_holds_the_number_that_the_tables_repeat(claims):
    """`load` compares the value with data/reported; here it is compared with the words of the paper."""
    for claim in claims:
        assert not claim.reported or claim.value in claim.quote, claim.id


def test_every_system_that_is_named_runs(claims):
    for name in {
        *ledger.short_names().values(),
        *(c.check[who] for c in claims for who in WHO if who in c.check),
    }:
        systems.parse(name)  # raises on a name, a parameter or a value that is unknown


def test_no_verdict_is_typed():
    text = (paths.DATA / "claims.yaml").read_text(encoding="utf-8")
    for raw in yaml.safe_load(text)["claims"]:
        assert not {"verdict", "measured", "evidence"} & set(raw)


# The file's errors


def entry_of(**changes) -> dict:
    claim = {
        "id": "one",
        "source": "personavoice",
        "where": "here",
        "quote": "13.5%",
        "value": "13.5%",
        "reported": "key_results/cfr_overall/PersonaVoice v10.4.8",
        "kind": "arithmetic",
        "check": {"expression": "a / b", "numbers": {"a": "27", "b": "200"}},
    }
    claim |= changes
    return {name: value for name, value in claim.items() if value is not None}


def written(folder, *entries, **more):
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump({"claims": list(entries), **more}), encoding="utf-8")
    return path


COMPARED = {
    "one": "personavoice",
    "other": "f5-official",
    "metric": "wer",
    "stratum": "long",
    "expect": "less",
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quote": None}, "claim one: no quote"),
        ({"id": None}, "claim number 1: no id"),
        ({"id": "One Two"}, "small letters"),
        ({"source": "elsewhere"}, "no source 'elsewhere'"),
        ({"kind": "guess"}, "no kind 'guess': choose one of arithmetic"),
        ({"verdict": "supported"}, "no field is called verdict"),
        ({"value": 13.5}, "write it in quotation marks"),
        ({"check": {"expression": "a / b"}}, "its check lacks numbers"),
        ({"check": {"expression": "a", "numbers": {"a": "1"}, "mood": "good"}}, "mood, which arithmetic does not"),
        ({"check": {"expression": "a", "numbers": {"a": 1}}}, "printed texts"),
        ({"check": {"expression": "a", "numbers": {"a": "some"}}}, "'some' is no printed number"),
        ({"check": {"expression": "a", "numbers": {"a": "claim:other"}}}, "there is no claim 'other'"),
        ({"check": {"expression": "a", "numbers": {"a": "counted:sheep"}}}, "nothing counts 'sheep'"),
        ({"check": {"expression": "a", "numbers": {"a": "reported:demo/x/y"}}}, "demo.csv has no x of y"),
        ({"check": {"expression": "a", "numbers": {"a": "1"}, "relation": "near"}}, "no relation 'near'"),
        ({"value": "13.6%"}, "its value is '13.6%', but data/reported has '0.135'"),
        ({"reported": "key_results/cfr/Nobody"}, "has no cfr of Nobody"),
        ({"kind": "property", "check": {"name": "it flies"}}, "nothing shows 'it flies'"),
        ({"kind": "difference", "check": {**COMPARED, "metric": "charm"}}, "no metric 'charm'"),
        ({"kind": "difference", "check": {**COMPARED, "stratum": "tiny"}}, "no stratum 'tiny'"),
        ({"kind": "difference", "check": {**COMPARED, "expect": "better"}}, "no expect 'better'"),
        ({"kind": "difference", "check": {**COMPARED, "one": "nobody"}}, "no system 'nobody'"),
    ],
)  # fmt: skip
def test_a_damaged_claim_is_named(tmp_path, changes, message):
    assert ledger.load(written(tmp_path, entry_of()))[0].value == "13.5%"
    with pytest.raises(LedgerError, match="claims.yaml.*") as error:
        ledger.load(written(tmp_path, entry_of(**changes)))
    assert message in str(error.value)


def test_a_damaged_file_is_named(tmp_path):
    with pytest.raises(LedgerError, match="one: appears twice"):
        ledger.load(written(tmp_path, entry_of(), entry_of()))
    path = tmp_path / "claims.yaml"
    for text, message in (("claims: [", "cannot be read"), ("claims: 3", "no list"), ("- a", "no list")):
        path.write_text(text)
        with pytest.raises(LedgerError, match=message):
            ledger.load(path)
    with pytest.raises(LedgerError, match="is missing"):
        ledger.load(tmp_path / "none.yaml")


def test_short_names_become_the_names_of_rows(tmp_path):
    claim = entry_of(kind="difference", check={**COMPARED, "other": "faster"})
    loaded = ledger.load(written(tmp_path, claim, systems={"faster": "personavoice@steps=8"}))
    assert loaded[0].check["other"] == "personavoice@steps=8"


# Printed numbers


@pytest.mark.parametrize(
    ("text", "low", "value", "high"),
    [
        ("27", 27, 27, 27),
        ("0.4066", 0.40655, 0.4066, 0.40665),
        ("0.50", 0.495, 0.5, 0.505),
        ("13.5%", 0.1345, 0.135, 0.1355),
        ("~5%*", 0.04, 0.05, 0.06),
        ("4.0-4.5", 3.95, 4.25, 4.55),
        ("<0.05", 0.05, 0.05, 0.05),
        ("31,876,709", 31876709, 31876709, 31876709),
        ("~31.9 M", 31.8e6, 31.9e6, 32e6),
        ("-1.0", -1.05, -1.0, -0.95),
    ],
)
def test_printed_numbers_stand_for_what_rounds_to_them(text, low, value, high):
    found = printed.parse(text)
    assert (found.low, found.value, found.high) == pytest.approx((low, value, high))


def test_expressions_of_printed_numbers():
    numbers = {"a": printed.parse("0.1"), "b": printed.parse("4"), "c": printed.parse("2.0")}
    assert str(printed.evaluate("b - 1", numbers)) == "3"
    found = printed.evaluate("a * c / b", numbers)
    assert (found.low, found.high) == pytest.approx((0.05 * 1.95 / 4, 0.15 * 2.05 / 4))
    assert printed.evaluate("max(a, c) - -b", numbers).value == 6
    for expression in ("a +", "d", "a / (b - 4)", "a ** b", "open(a)", "a.real", "'a'", "effect_of_p(a)"):
        with pytest.raises(ValueError):
            printed.evaluate(expression, numbers)


def test_relations_are_only_as_certain_as_rounding_allows():
    one, two, wide = printed.parse("1"), printed.parse("2"), printed.parse("~1.5")
    assert printed.holds(one, "less than", two) and printed.holds(two, "at least", one)
    assert printed.holds(one, "more than", two) is False and printed.holds(one, "at least", one)
    assert printed.holds(one, "more than", one) is False
    assert printed.holds(printed.parse("1.5"), "less than", wide) is None
    assert printed.holds(printed.parse("1.4"), "equals", wide) and not printed.holds(one, "equals", wide)
    with pytest.raises(ValueError, match="no relation"):
        printed.holds(one, "near", two)


def test_an_effect_follows_from_its_p():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.1, 1, 200), rng.normal(0, 1, 200)
    found = printed.effect_of_p(statistics.paired_t(a, b).p, 200)
    assert found == pytest.approx(abs(statistics.cohens_d(a, b).value))


# Verdicts from the paper's own numbers


def test_the_papers_arithmetic(board):
    """By hand: (53 x 0.4066 + 147 x 0.1158) / 200 = 0.19286; (53 x 0.16 + 147 x 0.10) / 200 = 0.1159, not 0.1296."""
    assert abs((53 * 0.4066 + 147 * 0.1158) / 200 - 0.1928) < 1e-4
    verdict = board["verdict"]
    assert verdict["wer-strata-personavoice"] == "arithmetic-ok"
    for system, short, long, overall in (
        ("xtts", 0.165, 0.105, 0.12955),
        ("cosyvoice", 0.685, 0.555, 0.61295),
        ("f5", 0.955, 0.855, 0.89815),
    ):
        assert (53 * short + 147 * long) / 200 < overall  # even with both rounded up
        assert verdict[f"wer-strata-{system}"] == "arithmetic-wrong"
    for name in ("cfr-overall-failures", "cfr-short-failures", "cfr-failures-add-up", "trainable-share"):
        assert verdict[name] == "arithmetic-ok"
    assert 19 + 8 == 27 and round(27 / 200, 3) == 0.135 and round(19 / 53, 3) == 0.358


def test_catastrophic_failures_bound_the_error_rate(board):
    """If 45 % fail with a rate of 1 and the others have one half, the mean is 0.725, below the printed 0.8982."""
    verdict = board["verdict"]
    assert verdict["cfr-overall-possible-f5"] == verdict["cfr-short-possible-f5"] == "arithmetic-wrong"
    assert verdict["cfr-short-possible-xtts"] == "arithmetic-ok"


def test_other_places_of_the_paper_and_its_released_files(board):
    verdict = board["verdict"]
    assert (
        verdict["demo-secs-long"]
        == verdict["cfr-overall-cosyvoice"]
        == verdict["rtf-cosyvoice"]
        == "contradicted"
    )
    assert verdict["demo-wer-long"] == verdict["cfr-overall-xtts"] == "supported"
    assert verdict["five-validated-five-used"] == "contradicted"  # CEAG is validated and switched off


def test_criteria_of_the_ablations(board):
    """t(199) = 1.972 gives d = 0.139; the power for 0.1 is 0.29."""
    assert board.loc["criterion-of-effect", "verdict"] == "arithmetic-ok"
    assert board.loc["criterion-of-effect", "measured"].startswith("0.1394")
    assert board.loc["criterion-of-power", "verdict"] == "arithmetic-wrong"
    for module in ("ibop", "td-cfg", "sbm"):
        assert board.loc[f"{module}-p-values", "verdict"] == "arithmetic-ok"


@pytest.mark.parametrize(
    ("name", "field", "value", "before", "after"),
    [
        ("cfr-short-failures", "failures", "18", "arithmetic-ok", "arithmetic-wrong"),
        ("wer-strata-personavoice", "n_short", "54", "arithmetic-ok", "arithmetic-wrong"),
        ("trainable-share", "total", "393.6 M", "arithmetic-ok", "arithmetic-wrong"),
        ("criterion-of-power", "n", "800", "arithmetic-wrong", "arithmetic-ok"),
    ],
)
def test_another_number_is_another_verdict(claims, name, field, value, before, after):
    [claim] = [claim for claim in claims if claim.id == name]
    others = [other for other in claims if other.id != name]
    changed = replace(claim, check={**claim.check, "numbers": {**claim.check["numbers"], field: value}})
    for one, verdict in ((claim, before), (changed, after)):
        found = ledger.KINDS["arithmetic"].run(one, NOTHING, {c.id: c for c in [*others, one]})
        assert found.verdict == verdict


def test_another_cell_is_another_verdict_elsewhere(claims):
    """A cell is stated once: the strata of the error rate feel a change of the overall one."""
    cells = {claim.id: claim for claim in claims}
    cells["wer-overall-personavoice"] = replace(cells["wer-overall-personavoice"], value="0.1828")
    found = ledger.KINDS["arithmetic"].run(cells["wer-strata-personavoice"], NOTHING, cells)
    assert found.verdict == "arithmetic-wrong"
    assert number("claim:wer-overall-personavoice", cells).value == 0.1828
    with pytest.raises(LedgerError, match=r"0\.1928"):
        try:
            ledger.check_claim(cells["wer-overall-personavoice"])
        except ValueError as error:
            raise LedgerError(str(error)) from error


def test_settings_are_those_of_the_paper_or_it_is_said(claims, monkeypatch):
    settings = [claim for claim in claims if claim.kind == "configuration"]
    assert set(ledger.scoreboard(NOTHING, settings)["verdict"]) == {"adopted"}
    other = replace(config.PAPER, inference=replace(config.PAPER.inference, steps=16))
    monkeypatch.setitem(config.PROFILES, "paper", other)
    found = ledger.scoreboard(NOTHING, settings).set_index("id")["verdict"]
    assert found["parameter-steps"] == "departed" and (found == "departed").sum() == 1


def test_mechanisms_are_looked_at(board):
    properties = board[board["kind"] == "property"]["verdict"]
    assert set(properties.index[properties == "contradicted"]) == {"oes-orthogonal", "laag-dynamic-guidance"}
    assert set(board[board["kind"] == "count"]["verdict"]) == {"supported"}
    with pytest.raises(facts.FactError, match="nothing counts"):
        facts.counted("sheep")
    with pytest.raises(facts.FactError, match="nothing shows"):
        facts.seen("it flies")


def test_the_official_sway_and_the_size_of_an_emotion_are_those_of_the_paper(claims, monkeypatch):
    names = ["sway-official-default", "emotion-embedding"]

    def found() -> list[tuple[str, str]]:
        return [
            tuple(line)
            for line in ledger.scoreboard(NOTHING, claims, only=names)[["verdict", "measured"]].values
        ]

    assert found() == [("supported", "-1"), ("supported", "4")]
    monkeypatch.setattr(official(), "sway_sampling_coef", -0.5)
    monkeypatch.setattr(facts.persona, "EMOTIONS", ("neutral", "happy", "sad"))
    assert found() == [("contradicted", "-0.5"), ("contradicted", "3")]
    monkeypatch.setattr(facts.persona, "emotion_embedding", lambda emotion: torch.ones(4))
    assert np.isnan(facts.counted("size of an emotion embedding, zeros for none"))


def test_what_the_ablations_compare_leads_to_their_notebook(claims):
    """Systems that only notebook 07 evaluates, among those that it tests."""
    (own,) = (claim for claim in claims if claim.id == "guidance-tuned")
    assert own.check["other"] in ablations.variants() and own.notebook == ablations.NOTEBOOK


def test_without_rows_nothing_is_guessed(board):
    kinds = (
        "level",
        "difference",
        "negligible",
        "no-gain",
        "identical",
        "strata",
        "bimodal",
        "speed",
        "external",
    )
    for kind in kinds:
        part = board[board["kind"] == kind]
        assert len(part) and set(part["verdict"]) == {"untested"} and (part["evidence"] != "").all(), kind
    assert "`pvlib evaluate --profile mini" in board.loc["secs-beats-official-f5", "evidence"]
    assert "personavoice@use_adapters=True" in board.loc["oes-validated", "evidence"]
    assert "pvlib reproduce --profile paper" in board.loc["secs-overall-personavoice", "evidence"]


@pytest.mark.slow
def test_the_whole_scoreboard(claims):
    board = ledger.scoreboard(NOTHING).set_index("id")
    assert list(board.index) == [claim.id for claim in claims]
    assert set(board["verdict"]) <= set(VERDICTS)
    computed = board[board["kind"].isin(["arithmetic", "count", "document", "configuration", "property"])]
    assert len(computed) >= 60 and not (computed["verdict"] == "untested").any()
    assert board.loc["ceag-cross-attention", "verdict"] == "contradicted"
    for name in ("blocks", "trainable-total", "total-size", "sv2tts-embedding"):
        assert board.loc[name, "verdict"] == "supported", name
    for name in ("sv2tts-lstm", "sv2tts-partials"):
        assert board.loc[name, "verdict"] == "adopted", name
    assert facts.counted("parameters of a block") == 14_693_376
    assert facts.counted("parameters of the backbone") == 337_096_804
    counts = ledger.tally(board.reset_index())
    assert list(counts.index) == list(VERDICTS) and counts["all"].sum() == len(claims)


# Verdicts from rows


def rows_of(system: str, wer, secs=0.5, *, seed: int = 0) -> pd.DataFrame:
    """Made-up rows: four utterances a speaker, every second one long; a rate and a similarity for each."""
    n = len(wer)
    table = pd.DataFrame(
        {
            "system": system,
            "utterance": [f"u{k:03}" for k in range(n)],
            "speaker": [f"s{k // 4:02}" for k in range(n)],
            "words": [(3, 12)[k % 2] for k in range(n)],
            "bucket": [("ultra-short", "long")[k % 2] for k in range(n)],
            "reference_seconds": 1.0,
            "seed": seed,
            "text": [
                ("a red fox", "one two three four five six seven eight nine ten more words")[k % 2]
                for k in range(n)
            ],
            "reference_text": "",
            "hypothesis": "a red fox",
            "wer": wer,
            "wer_capped": np.minimum(wer, 1),
            "generated_seconds": 1.0,
            "synthesis_seconds": 0.5,
            "dnsmos": 3.0,
            "error": "",
        }
    )
    for name in ("secs_ecapa_clip", "secs_ecapa_speaker", "secs_ge2e_clip", "secs_ge2e_speaker"):
        table[name] = np.full(n, secs) if np.isscalar(secs) else secs
    return table[list(row_files.COLUMNS)]


def claim_of(kind: str, check: dict, name: str = "made-up", value: str = "") -> Claim:
    claim = Claim(name, "personavoice", "nowhere", "a quote", kind, check, value)
    ledger.check_claim(claim)
    return claim


def verdict(claim: Claim, *tables: pd.DataFrame, profile: str = "mini", speeds=None) -> str:
    rows = pd.concat(tables, ignore_index=True) if tables else None
    return ledger.scoreboard(Evidence(profile, rows, speeds or {}), [claim]).loc[0, "verdict"]


@pytest.fixture
def noise():
    return np.random.default_rng(0)


def test_a_known_difference_is_found(noise):
    base = noise.uniform(0.2, 0.7, 200)
    ours = rows_of("personavoice", base)
    check = {**COMPARED, "metric": "wer_capped", "stratum": "overall"}
    better = rows_of("f5-official", base + 0.1 + noise.normal(0, 0.1, 200))
    worse = rows_of("f5-official", base - 0.1 + noise.normal(0, 0.1, 200))
    alike = rows_of("f5-official", base + 0.001 + noise.normal(0, 0.1, 200))
    claim = claim_of("difference", check)
    assert verdict(claim, ours, better) == "supported"
    assert verdict(claim, ours, worse) == "contradicted"
    assert verdict(claim, ours, alike) == "inconclusive"
    assert verdict(claim, ours) == verdict(claim) == "untested"
    assert verdict(claim_of("difference", {**check, "effect": "5"}), ours, better) == "contradicted"
    assert verdict(claim_of("difference", {**check, "stratum": "5-8 words"}), ours, better) == "untested"


def test_pairs_of_the_same_sound_are_counted_and_texts_that_are_cut_stand_alone(noise):
    """Every fourth text is longer than a chunk, and only there the two systems differ."""
    cut = np.arange(200) % 4 == 0
    base = noise.uniform(0.2, 0.7, 200)
    change = np.where(cut, 0.1 + noise.normal(0, 0.05, 200), 0.0)
    ours, theirs = rows_of("personavoice", base), rows_of("f5-official", base + change)
    for rows in (ours, theirs):
        rows["text"] = np.where(cut, "so many words " * 12, "a red fox")
    check = {**COMPARED, "metric": "wer_capped", "expect": "less"}
    found = {}
    for stratum in ("overall", "several-chunk", "one-chunk"):
        claim = claim_of("difference", {**check, "stratum": stratum})
        board = ledger.scoreboard(Evidence("mini", pd.concat([ours, theirs]), {}), [claim])
        found[stratum] = board.loc[0]
    assert "n = 200, 50 speakers, of which 50 differ, by -0.09" in found["overall"]["evidence"]
    assert (
        "n = 50," in found["several-chunk"]["evidence"] and "differ" not in found["several-chunk"]["evidence"]
    )
    assert "n = 150," in found["one-chunk"]["evidence"]
    verdicts = [found[stratum]["verdict"] for stratum in found]
    assert verdicts == ["supported", "supported", "inconclusive"]


def test_a_first_word_is_a_metric_of_claims():
    """The other system loses the first word of every text; its last word is well."""
    text = "a red fox"
    ours, theirs = (
        rows_of(name, np.full(200, rate)) for name, rate in (("personavoice", 0.0), ("f5-official", 1 / 3))
    )
    ours["text"] = theirs["text"] = text
    theirs["hypothesis"] = ["red fox" if k % 5 else text for k in range(200)]
    check = {**COMPARED, "metric": "first_lost", "stratum": "one-chunk", "expect": "less"}
    assert verdict(claim_of("difference", check), ours, theirs) == "supported"
    assert verdict(claim_of("difference", {**check, "expect": "more"}), ours, theirs) == "contradicted"


def test_a_variant_is_held_against_the_pipeline_on_its_own_share_of_the_study(noise):
    base = noise.uniform(0.2, 0.7, 200)
    ours = rows_of("personavoice", base)
    theirs = rows_of("f5-official", base + 0.2 + noise.normal(0, 0.05, 200))
    share = rows_of("personavoice", base[:24] + 0.3)  # other rows than the study's, to tell them apart
    variant = rows_of("variant", base[:24] + 0.1 + noise.normal(0, 0.05, 24))
    evidence = Evidence("mini", pd.concat([ours, theirs]), variant_rows=pd.concat([share, variant]))
    check = {"one": "variant", "other": "personavoice", "metric": "wer_capped", "stratum": "overall"}
    claims = [
        claim_of("difference", {**check, "expect": "less"}, "of-the-variant"),
        claim_of("difference", {**COMPARED, "metric": "wer_capped", "stratum": "overall"}, "of-the-study"),
        claim_of("difference", {**check, "one": "nobody", "expect": "less"}, "of-nobody"),
    ]
    board = ledger.scoreboard(evidence, claims)
    assert list(board["verdict"]) == ["supported", "supported", "untested"]
    assert "24" in board.loc[0, "evidence"] and "200" in board.loc[1, "evidence"]


@pytest.mark.parametrize(
    ("shift", "effect", "expected"),
    [
        (0.1, "", "supported"),
        (-0.1, "", "contradicted"),
        (0.1, "0.1", "inconclusive"),
        (0.0, "", "inconclusive"),
    ],
)
def test_the_same_difference_everywhere_is_a_verdict_and_no_crash(shift, effect, expected):
    """Of six pairs, all on one side: p = 2 / 2^6. Where nothing varies d is not defined, or zero."""
    base = np.linspace(0.2, 0.7, 6)
    ours = rows_of("personavoice", base, base)
    theirs = rows_of("f5-official", base + shift, base + 0.001)  # another sound, so that all pairs differ
    check = {**COMPARED, "metric": "wer_capped", "stratum": "overall"} | (
        {"effect": effect} if effect else {}
    )
    evidence = Evidence("mini", pd.concat([ours, theirs]))
    line = ledger.scoreboard(evidence, [claim_of("difference", check)]).iloc[0]
    assert line["verdict"] == expected and line["p"] == pytest.approx(2 / 2**6 if shift else 1)
    assert ("d_z is not defined" in line["evidence"]) == bool(shift)
    check = {name: check[name] for name in ("one", "other", "metric", "stratum")} | {"margin": "0.2"}
    assert verdict(claim_of("negligible", check), ours, theirs) == "inconclusive"


@pytest.mark.parametrize(
    ("kind", "check", "profile"),
    [
        ("difference", {"one": "personavoice", "other": "f5-official", "expect": "less"}, "mini"),
        ("negligible", {"one": "personavoice", "other": "f5-official", "margin": "0.2"}, "mini"),
        ("identical", {"one": "personavoice", "other": "f5-official"}, "mini"),
        ("strata", {"system": "personavoice", "first": "short", "second": "long", "expect": "more"}, "mini"),
        ("bimodal", {"system": "personavoice"}, "mini"),
        ("level", {"system": "personavoice"}, "paper"),
    ],
)
def test_fewer_than_six_texts_are_no_evidence(kind, check, profile):
    """Five of a kind that speak for or against a claim as clearly as can be; six do decide."""
    check |= {} if kind == "identical" else {"metric": "wer_capped"}
    check |= {"stratum": "ultra-short"} if kind in ("difference", "negligible", "bimodal", "level") else {}
    wer = np.where(np.arange(12) % 2, 0.1, np.repeat([1.0, 0.0, 1.0], 4))  # every second text is ultra-short
    ours = rows_of("personavoice", wer)
    theirs = rows_of("f5-official", 2.0 - wer * np.arange(12) / 11, 0.6)
    claim = claim_of(kind, check, value="0.001" if kind == "level" else "")
    few = Evidence(profile, pd.concat([table[:10] for table in (ours, theirs)]))
    if kind == "identical":
        few = replace(few, rows=few.rows[few.rows["bucket"] == "long"])
    line = ledger.scoreboard(few, [claim]).iloc[0]
    assert line["verdict"] == "untested" and "fewer than the 6" in line["evidence"]
    assert f"`pvlib evaluate --profile {profile} --system 'personavoice' --samples 200`" in line["evidence"]
    assert verdict(claim, ours, theirs, profile=profile) != "untested"


def test_who_always_fails_where_the_other_never_does_fails_more():
    """McNemar's mid-p of six discordant pairs, all on one side: 1 / 2^6."""
    ours, theirs = rows_of("personavoice", np.zeros(6)), rows_of("f5-official", np.ones(6))
    evidence = Evidence("mini", pd.concat([ours, theirs]))
    claim = claim_of("difference", {**COMPARED, "metric": "cfr", "stratum": "overall"})
    line = ledger.scoreboard(evidence, [claim]).iloc[0]
    assert line["verdict"] == "supported" and line["p"] == pytest.approx(1 / 2**6)


def test_one_changed_row_changes_a_verdict():
    """Five discordant failures have a mid-p of 0.0625 / 2; with four it is 0.0625."""
    wer = np.zeros(40)
    ours, theirs = rows_of("personavoice", wer), rows_of("f5-official", wer)
    theirs["secs_ecapa_clip"] += 0.01  # another sound everywhere, else only the five would differ at all
    theirs.loc[[0, 8, 16, 24, 32], "wer"] = 0.9
    claim = claim_of("difference", {**COMPARED, "metric": "cfr", "stratum": "overall"})
    assert verdict(claim, ours, theirs) == "supported"
    theirs.loc[32, "wer"] = 0.5  # one half is no catastrophe
    assert verdict(claim, ours, theirs) == "inconclusive"


def test_many_tests_are_corrected(noise):
    base = noise.normal(0.5, 0.1, 200)
    spread = noise.permutation(np.linspace(-0.1, 0.1, 200))
    shift = 2.6 * spread.std(ddof=1) / np.sqrt(200)  # so that t = 2.6, p = 0.01
    ours = rows_of("personavoice", np.zeros(200), base)
    theirs = rows_of("f5-official", np.zeros(200), base - spread - shift)
    check = {**COMPARED, "metric": "secs_ecapa_clip", "stratum": "overall", "expect": "more"}
    evidence = Evidence("mini", pd.concat([ours, theirs]))
    alone = ledger.scoreboard(evidence, [claim_of("difference", check)])
    assert alone.loc[0, "p"] == pytest.approx(2 * scipy.stats.t.sf(2.6, 199))
    assert alone.loc[0, "verdict"] == "supported"
    same = ledger.scoreboard(evidence, [claim_of("difference", check, f"claim-{k}") for k in range(30)])
    assert same["p_holm"].to_numpy() == pytest.approx(alone.loc[0, "p"]), (
        "one test, however many claims rest on it"
    )
    others = ["f5-official", "f5-as-published", "sv2tts", "sv2tts-wavernn", "xtts", "cosyvoice"]
    evidence = Evidence("mini", pd.concat([ours, *(theirs.assign(system=name) for name in others)]))
    claims = [claim_of("difference", {**check, "other": name}, f"over-{name}") for name in others]
    many = ledger.scoreboard(evidence, claims)
    assert set(many["verdict"]) == {"inconclusive"} and "Holm" in many.loc[0, "evidence"]
    assert many.loc[0, "p_holm"] == pytest.approx(6 * alone.loc[0, "p"])
    apart = [replace(claim, notebook=f"{k:02}") for k, claim in enumerate(claims)]
    assert ledger.scoreboard(evidence, apart)["p_holm"].to_numpy() == pytest.approx(alone.loc[0, "p"])


def test_a_family_has_the_same_p_in_every_notebook(claims):
    p = np.linspace(0.001, 0.2, len(claims))
    whole = dict(zip((claim.id for claim in claims), ledger.families(claims, p), strict=True))
    shown = [k for k, claim in enumerate(claims) if claim.notebook == "07"]
    part = ledger.families([claims[k] for k in shown], p[shown])
    assert part.tolist() == [whole[claims[k].id] for k in shown]


def test_every_equivalence_can_be_shown_or_is_no_test(claims):
    """Two systems of 200 utterances that are exactly alike: whatever margin can be shown is shown."""
    base = np.linspace(0.2, 0.7, 200)
    alike = np.tile([0.05, -0.05, -0.05, 0.05], 50)  # of each speaker as much above as below
    asked = [claim for claim in claims if claim.kind in ("negligible", "no-gain") and claim.notebook == "07"]
    names = {name for claim in asked for name in (claim.check["one"], claim.check["other"])} - {
        "personavoice"
    }
    rows = [
        rows_of("personavoice", base, base),
        *(rows_of(name, base + alike, base + alike) for name in names),
    ]
    board = ledger.scoreboard(Evidence("mini", pd.concat(rows)), claims, only=[claim.id for claim in asked])
    wide = board["id"].isin([claim.id for claim in asked if float(claim.check["margin"]) >= 0.2])
    whole = board["id"].isin([claim.id for claim in asked if claim.check["stratum"] == "overall"])
    assert set(board[wide & whole]["verdict"]) == {"supported"}
    assert board[~wide & whole]["p"].isna().all() and "too few" in board[~wide & whole]["evidence"].iloc[0]


@pytest.mark.parametrize("column", ["wer", "wer_capped", "secs_ge2e_clip", "dnsmos", "seed"])
def test_a_row_that_was_cut_short_is_named(column):
    table = manifests.read("mini-test").sample(4)
    own = ("utterance", "speaker", "bucket", "text", "words")
    rows = rows_of("personavoice", np.zeros(4)).assign(**{name: table[name].to_numpy() for name in own})
    ledger.check_rows(rows, manifests.read("mini-test"))
    rows.loc[2, column] = np.nan
    with pytest.raises(LedgerError, match=f"personavoice: {table['utterance'].iloc[2]} has no {column}"):
        ledger.check_rows(rows, manifests.read("mini-test"))


# The committed record


@pytest.fixture(scope="module")
def recorded() -> pd.DataFrame:
    parts = ["mini", f"mini/{row_files.VARIANTS}", row_files.part_of("mini", MINI.ultra_short)]
    return pd.concat([row_files.committed(part) for part in parts], ignore_index=True)


def test_committed_error_rates_are_those_of_the_committed_words(recorded):
    heard = recorded["hypothesis"].fillna("")
    again = np.array([wer(text, words) for text, words in zip(recorded["text"], heard, strict=True)])
    assert len(again) > 2000 and np.abs(again - recorded["wer"]).max() < 1e-6
    assert np.abs(np.minimum(again, 1) - recorded["wer_capped"]).max() < 1e-6


def test_the_readme_shows_the_committed_rows():
    readme = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.results_markdown("mini").strip() in readme


def test_the_ledger_shows_the_verdicts_of_the_committed_rows():
    notebook = nbformat.read(paths.NOTEBOOKS / "12_claims_ledger.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = "".join(output.get("data", {}).get("text/markdown", "") for output in outputs)
    for sentence in ledger.summary(ledger.scoreboard(ledger.evidence("mini"))):
        assert sentence in shown


def test_no_difference_has_to_be_shown_as_well(noise):
    check = {"one": "personavoice", "other": "f5-official", "metric": "wer_capped", "stratum": "overall"}
    base = noise.uniform(0.2, 0.7, 200)
    ours = rows_of("personavoice", base)
    alike = rows_of("f5-official", base + noise.permutation(np.linspace(-0.1, 0.1, 200)))
    apart = rows_of("f5-official", base + 0.1 + noise.normal(0, 0.05, 200))
    assert verdict(claim_of("negligible", {**check, "margin": "0.3"}), ours, alike) == "supported"
    assert verdict(claim_of("negligible", {**check, "margin": "0.05"}), ours, alike) == "inconclusive"
    assert verdict(claim_of("negligible", {**check, "margin": "0.3"}), ours, apart) == "contradicted"


@pytest.mark.parametrize("gain", ["less", "more"])
def test_a_loss_refutes_no_claim_of_no_gain(noise, gain):
    """By symmetry: what is shown to be a gain one way is a loss the other way, and speaks for the claim."""
    check = {"one": "personavoice", "other": "f5-official", "metric": "wer_capped", "stratum": "overall"}
    check |= {"margin": "0.3", "gain": gain}
    base = noise.uniform(0.2, 0.7, 200)
    alike = noise.permutation(np.linspace(-0.1, 0.1, 200))
    shift = {"less": 0.1, "more": -0.1}[gain]  # of the other, which makes ours better
    ours = rows_of("personavoice", base)
    better, worse, same = (rows_of("f5-official", base + alike + by) for by in (shift, -shift, 0.0))
    claim = claim_of("no-gain", check)
    assert verdict(claim, ours, better) == "contradicted"
    assert verdict(claim, ours, worse) == verdict(claim, ours, same) == "supported"
    assert verdict(claim_of("no-gain", {**check, "margin": "0.05"}), ours, same) == "inconclusive"
    two_sided = claim_of("negligible", {name: check[name] for name in check if name != "gain"})
    assert verdict(two_sided, ours, worse) == "contradicted"
    few = [table[:12] for table in (ours, worse)]
    assert verdict(claim, *few) == "supported"  # a clear loss is shown by few
    board = ledger.scoreboard(Evidence("mini", pd.concat([ours, worse])), [claim])
    tail = scipy.stats.nct.cdf(
        -abs(statistics.cohens_d(base, base + alike - shift).value) * np.sqrt(200), 199, 0.3 * np.sqrt(200)
    )
    assert board.loc[0, "p"] == pytest.approx(tail, abs=1e-12) and "and by no loss" in board.loc[0, "check"]


def test_no_gain_has_to_be_small_over_speakers_too(noise):
    """Half of the speakers gain and half lose: over utterances nothing, over speakers an interval as wide as both."""
    by_speaker = np.repeat(np.where(np.arange(10) % 2, 0.2, -0.2), 4) + noise.normal(0, 0.01, 40)
    base = np.full(40, 0.5)
    check = {"one": "personavoice", "other": "f5-official", "metric": "wer_capped", "stratum": "overall"}
    claim = claim_of("no-gain", {**check, "margin": "0.4", "gain": "less"})
    rows = pd.concat([rows_of("personavoice", base), rows_of("f5-official", base + by_speaker)])
    line = ledger.scoreboard(Evidence("mini", rows), [claim]).iloc[0]
    assert (
        line["p"] < 0.05 and line["verdict"] == "inconclusive" and "over speakers up to" in line["evidence"]
    )


def test_who_chose_among_samples_does_not_judge_them(claims):
    """GRPO keeps the sample that is nearest to the clip by ECAPA; the other encoder judges what it brings."""
    chosen = [claim for claim in claims if "grpo=True" in str(claim.check.get("one", ""))]
    assert {claim.id for claim in chosen} >= {"grpo-non-core", "grpo-test-time", "grpo-removed"}
    assert not [claim.id for claim in chosen if claim.check["metric"].startswith("secs_ecapa")]
    assert any(claim.check["metric"].startswith("secs_ge2e") for claim in chosen)


def test_claims_of_no_effect_are_refuted_only_among_all_that_were_asked(noise):
    """One of six systems is further off than the margin with p just below 0.05: that is what six tries may bring."""
    base = noise.uniform(0.2, 0.7, 40)
    spread = noise.permutation(np.linspace(-0.1, 0.1, 40))
    names = ["f5-official", "f5-as-published", "sv2tts", "sv2tts-wavernn", "xtts", "cosyvoice"]
    check = {"one": "personavoice", "metric": "wer_capped", "stratum": "overall", "margin": "0.1"}
    shifts = dict.fromkeys(names, 0.0) | {"cosyvoice": 0.46 * spread.std(ddof=1)}
    rows = [rows_of("personavoice", base), *(rows_of(n, base + spread + s) for n, s in shifts.items())]
    evidence = Evidence("mini", pd.concat(rows))
    claims = [claim_of("negligible", {**check, "other": name}, f"as-{name}") for name in names]
    alone = ledger.scoreboard(evidence, claims[-1:]).iloc[0]
    assert alone["verdict"] == "contradicted" and 0.05 / 6 < alone["p"] < 0.05
    among = ledger.scoreboard(evidence, claims).iloc[-1]
    assert among["verdict"] == "inconclusive" and among["p_holm"] == pytest.approx(6 * alone["p"])


def test_pairs_that_cannot_differ_are_no_evidence(noise):
    """A module that acts on 5 of 40 texts and leaves the sound of the others alone, to the bit."""
    base = noise.uniform(0.2, 0.7, 40)
    touched = np.isin(np.arange(40), [1, 9, 17, 25, 33])
    ours, without = rows_of("personavoice", np.zeros(40), base), base - 0.1 * touched
    check = {**COMPARED, "metric": "secs_ecapa_clip", "stratum": "overall", "expect": "more"}
    five = Evidence("mini", pd.concat([ours, rows_of("f5-official", np.zeros(40), without)]))
    line = ledger.scoreboard(five, [claim_of("difference", check)]).iloc[0]
    assert line["verdict"] == "inconclusive" and np.isnan(line["p"])
    assert line["measured"] == "5 of 40 pairs differ"
    six = rows_of("f5-official", np.zeros(40), base - 0.1 * (touched | (np.arange(40) == 38)))
    assert (
        "pairs differ"
        not in ledger.scoreboard(
            Evidence("mini", pd.concat([ours, six])), [claim_of("difference", check)]
        ).loc[0, "measured"]
    )


def test_identity_is_exact():
    ours = rows_of("personavoice", np.linspace(0, 1, 20))
    same = ours.assign(system="f5-official")
    claim = claim_of("identical", {"one": "personavoice", "other": "f5-official"})
    assert verdict(claim, ours, same) == "supported"
    other = same.copy()
    other.loc[3, "hypothesis"] = "a red box"
    assert verdict(claim, ours, other) == "contradicted"
    other = same.copy()
    other.loc[3, "secs_ge2e_clip"] += 0.001
    assert verdict(claim, ours, other) == "contradicted"
    for unit, expected in ((1e-6, "supported"), (2e-6, "contradicted")):  # of the last digit that rows keep
        other = same.copy()
        other.loc[3, "secs_ge2e_clip"] = round(other.loc[3, "secs_ge2e_clip"] + unit, 6)
        assert verdict(claim, ours, other) == expected


def test_short_against_long_texts(noise):
    rates = np.where(np.arange(200) % 2, 0.1, 0.6) + noise.normal(0, 0.05, 200)
    check = {
        "system": "personavoice",
        "metric": "wer_capped",
        "first": "short",
        "second": "long",
        "expect": "more",
    }
    claim = claim_of("strata", check)
    assert verdict(claim, rows_of("personavoice", rates)) == "supported"
    assert verdict(claim, rows_of("personavoice", 1 - rates)) == "contradicted"
    assert verdict(claim, rows_of("personavoice", noise.permutation(rates))) == "inconclusive"
    assert (
        verdict(claim_of("strata", {**check, "second": "5-8 words"}), rows_of("personavoice", rates))
        == "untested"
    )
    assert (
        verdict(claim_of("strata", {**check, "metric": "cfr"}), rows_of("personavoice", rates)) == "supported"
    )


def test_a_few_at_one_end_are_no_heap(monkeypatch):
    """Where the test of modes speaks for two, the numbers at the ends still have to."""
    two = modality.Bimodality(150, 0.7, 0.1, 0.0002, (0.0, 1.0))
    monkeypatch.setattr(checks.modality, "bimodality", lambda values: two)
    claim = claim_of("bimodal", {"system": "personavoice", "metric": "wer_capped", "stratum": "overall"})
    for ends, expected in (
        ((30, 9, 1), "inconclusive"),
        ((10, 20, 10), "inconclusive"),
        ((20, 5, 15), "supported"),
    ):
        rates = np.repeat([0.0, 0.5, 1.0], ends)
        assert verdict(claim, rows_of("personavoice", rates)) == expected


def test_two_heaps(noise):
    claim = claim_of("bimodal", {"system": "personavoice", "metric": "wer_capped", "stratum": "ultra-short"})
    heaps = np.repeat(noise.permutation([0.0] * 8 + [0.5] + [1.0] * 11), 2)
    assert verdict(claim, rows_of("personavoice", heaps)) == "supported"
    assert verdict(claim, rows_of("personavoice", noise.normal(0.5, 0.1, 40))) == "inconclusive"
    assert verdict(claim, rows_of("personavoice", np.zeros(40))) == "untested"
    few = claim_of("bimodal", {**claim.check, "metric": "secs_ecapa_clip"})
    with pytest.raises(LedgerError, match="word error rates, not of secs_ecapa_clip"):
        verdict(few, rows_of("personavoice", heaps))
    words = rows_of("personavoice", heaps)  # of one word nothing lies between right and wrong
    assert verdict(claim, words.assign(words=np.where(words["bucket"] == "long", 12, 1))) == "untested"


def test_speeds():
    claim = claim_of("speed", {"one": "f5-official", "other": "personavoice", "expect": "less"})
    slow, fast = ({"median": m, "low": m - 0.1, "high": m + 0.1, "utterances": 6} for m in (0.9, 0.5))
    near = {"median": 0.55, "low": 0.4, "high": 0.7, "utterances": 6}
    for f5, ours, expected in (
        (fast, slow, "supported"),
        (slow, fast, "contradicted"),
        (near, fast, "inconclusive"),
    ):
        assert verdict(claim, speeds={"f5-official": f5, "personavoice": ours}) == expected
    assert verdict(claim, speeds={"f5-official": fast}) == "untested"
    level = claim_of(
        "level", {"system": "personavoice", "metric": "rtf", "stratum": "overall"}, value="0.55-0.66"
    )
    assert verdict(level, profile="paper", speeds={"personavoice": near}) == "supported"
    assert verdict(level, profile="paper", speeds={"personavoice": slow}) == "contradicted"
    assert verdict(level, speeds={"personavoice": near}) == "untested"
    few = {"f5-official": fast | {"utterances": 5}, "personavoice": slow}
    line = ledger.scoreboard(Evidence("mini", None, few), [claim]).iloc[0]
    assert line["verdict"] == "untested" and "5 texts of f5-official timed here" in line["evidence"]
    assert "`pvlib reproduce --profile mini --samples 200`" in line["evidence"]
    assert sweeps.timed(200) >= pairs.LEAST
    assert verdict(level, profile="paper", speeds={"personavoice": slow | {"utterances": 1}}) == "untested"


@pytest.mark.slow
def test_levels_belong_to_their_profile(noise):
    """A printed 0.3 against measured rates around it, and far from it."""
    claim = claim_of(
        "level", {"system": "personavoice", "metric": "wer_capped", "stratum": "overall"}, value="0.300"
    )
    rates = noise.permutation(np.linspace(0.1, 0.5, 200))
    few = noise.permutation(np.linspace(0.1, 0.5, 40))
    assert verdict(claim, rows_of("personavoice", rates)) == "untested"
    assert verdict(claim, rows_of("personavoice", rates), profile="paper") == "supported"
    assert verdict(claim, rows_of("personavoice", rates + 0.2), profile="paper") == "contradicted"
    assert verdict(claim, rows_of("personavoice", few), profile="paper") == "inconclusive"
    assert verdict(claim, rows_of("impostor", rates), profile="paper") == "untested"


# Evidence that does not belong together


@pytest.fixture
def made_up():
    table = rows_of("personavoice", np.linspace(0, 1, 20))
    names = ["utterance", "speaker", "text", "words", "bucket"]
    manifest = Manifest("made-up", table[names].assign(audio="", clip="", seed=0), paths.DATA)
    return table, manifest


def test_rows_are_held_against_their_manifest(made_up):
    ours, manifest = made_up
    theirs, impostor = (
        ours.assign(system="f5-official"),
        ours.assign(system="impostor", text="another sentence"),
    )
    found = ledger.evidence("mini", pd.concat([ours, theirs, impostor]), manifest=manifest)
    assert len(found.rows) == 60
    for rows, message in (
        ([ours, theirs.drop(index=4)], "f5-official has no row of u004"),
        ([ours, theirs.assign(utterance="x1")], "x1 is not in the manifest made-up"),
        ([ours.assign(text="another sentence")], "u000 has another text"),
        ([ours.assign(speaker="s9")], "u000 has another speaker"),
        ([ours, ours], "u000 appears twice"),
        ([ours.drop(columns="wer")], "no column wer"),
    ):
        with pytest.raises(LedgerError, match=message):
            ledger.evidence("mini", pd.concat(rows, ignore_index=True), manifest=manifest)


def test_committed_rows_that_were_cut_are_named(made_up, tmp_path, monkeypatch):
    ours, manifest = made_up
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    assert ledger.evidence("mini", manifest=manifest).rows is None  # nothing was recorded
    path = row_files.committed_path("mini", "personavoice")
    row_files.write_text(path, row_files.to_csv(ours))
    card = '{"systems": ["personavoice"], "machine": {}, "samples": 20}'
    row_files.write_text(tmp_path / "mini" / "provenance.json", card)
    assert len(ledger.evidence("mini", manifest=manifest).rows) == 20
    assert ledger.evidence("mini", manifest=manifest).variant_rows is None
    row_files.write_text(
        row_files.committed_path("mini/variants", "personavoice"), row_files.to_csv(ours[:6])
    )
    row_files.write_text(tmp_path / "mini" / "variants" / "provenance.json", card.replace("20", "6"))
    assert len(ledger.evidence("mini", manifest=manifest).variant_rows) == 6
    row_files.write_text(path, row_files.to_csv(ours.iloc[:-3]))
    with pytest.raises(LedgerError, match="holds 17 utterances of the 20 recorded"):
        ledger.evidence("mini", manifest=manifest)
    path.unlink()
    with pytest.raises(row_files.RowsError, match="is missing"):
        ledger.evidence("mini", manifest=manifest)


def test_evidence_that_does_not_fit_names_the_claim(made_up):
    ours, _ = made_up
    short = ours.assign(system="f5-official").iloc[:-4]
    claim = claim_of("difference", {**COMPARED, "stratum": "overall"}, "the-claim")
    with pytest.raises(LedgerError, match="claim the-claim: personavoice has u016"):
        verdict(claim, ours, short)


def test_the_manifest_of_the_profile_is_asked_for_rows(made_up):
    ours, _ = made_up
    with pytest.raises(LedgerError, match="u000 is not in the manifest mini-test"):
        ledger.evidence("mini", ours)
    assert manifests.read("mini-test").name == "mini-test"
