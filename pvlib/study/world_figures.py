"""The judges and the vocoder judged: error rates and similarities on speech that no training saw.

Speakers told apart (equal error rate on a trial list), words understood (true, vocoded and scrambled sentences), and
what the vocoder costs beside Griffin-Lim's phase reconstruction from the same mel spectrogram.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from pvlib import audio, hub, paths
from pvlib.config import Profile, get_profile
from pvlib.metrics import dnsmos, wer
from pvlib.metrics.judges import ENCODERS, Judges
from pvlib.metrics.secs import cosine
from pvlib.study import manifest as manifests
from pvlib.study import statistics
from pvlib.study.evaluate import shared_judges
from pvlib.study.examples import mel_distance
from pvlib.study.kept import kept
from pvlib.study.manifest import Manifest, ManifestError
from pvlib.systems.fingerprint import digest, fingerprint
from pvlib.systems.ground_truth import vocoded
from pvlib.vocoder import griffin_lim

BATCH = 16
SCRAMBLED_TIMES = (
    1.5  # the error rate of true recordings, where words stand in no order; or 5 %, if that is more
)
QUALITY_UTTERANCES = 40  # Griffin-Lim and DNSMOS are slow; a stratified sample is enough


@dataclass(frozen=True)
class Target:
    """A figure with the value that it should reach."""

    id: str
    what: str
    target: str
    shown: str
    reached: bool


def model_figures(
    profile: Profile | str = "mini",
    *,
    device: torch.device | str | None = None,
    quality_utterances: int = QUALITY_UTTERANCES,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure the judges and the vocoder; kept in `build/results/<profile>/models.json`.

    Returns {"values": {name: number}, "figures": [target lines, see `Target`], "key", "weights", "utterances"}. Not
    measured again while weights, sources and manifests are the same. Raises ManifestError, WeightsError.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    manifest = manifests.read(profile.manifest)
    judges = shared_judges(profile, device)
    stem = paths.MANIFESTS / profile.manifest.removesuffix("-test")
    trials = read_table(stem.with_name(stem.name + "-trials.csv"), ("label", "first", "second"))
    scrambled = read_table(stem.with_name(stem.name + "-scrambled.csv"), ("utterance", "text", "audio"))
    key = digest(
        {
            "judges": judges.fingerprint(),
            "vocoder": fingerprint(profile, modules=[__name__], weights=["vocoder"], device=device),
            "manifest": manifest.table.to_csv(index=False),
            "trials": trials.to_csv(index=False),
            "scrambled": scrambled.to_csv(index=False),
            "quality_utterances": quality_utterances,
        }
    )
    path = paths.WORKING_ROWS / profile.name / "models.json"

    def measured() -> dict[str, Any]:
        return _measured(profile, device, manifest, judges, trials, scrambled, quality_utterances, progress)

    return kept(path, key, measured)


def _measured(
    profile: Profile,
    device: torch.device,
    manifest: Manifest,
    judges: Judges,
    trials: pd.DataFrame,
    scrambled: pd.DataFrame,
    quality_utterances: int,
    progress: bool,
) -> dict[str, Any]:
    def bar(items: Sequence, what: str) -> Iterable:
        return tqdm(items, desc=what, unit="batch", disable=not progress)

    table = manifest.table
    waves = [audio.load(manifest.folder / file) for file in table["audio"]]
    clips = [audio.load(manifest.folder / file) for file in table["clip"]]
    vocoder = hub.load_vocoder(profile, device)
    copies = [vocoded(vocoder, wave, device) for wave in tqdm(waves, desc="vocoder", disable=not progress)]
    mixed = [audio.load(manifest.folder / file) for file in scrambled["audio"]]

    whole = _embed(judges.embed, bar(_batches(waves), "embed recordings"))
    second = _embed(judges.embed, bar(_batches(clips), "embed clips"))
    copied = _embed(judges.embed, bar(_batches(copies), "embed vocoded"))
    values: dict[str, float] = {}
    for name in ENCODERS:
        for kind, sound in (("whole", whole), ("second_against_whole", second)):
            found = trial_eer(trials, table, sound[name], whole[name])
            values |= {
                f"eer_{name}_{kind}": found.value,
                f"eer_{name}_{kind}_low": found.low,
                f"eer_{name}_{kind}_high": found.high,
            }
        values[f"vocoder_similarity_{name}"] = float(cosine(whole[name], copied[name]).mean())
    for name, sounds, texts in (
        ("ground_truth", waves, table["text"]),
        ("vocoded", copies, table["text"]),
        ("scrambled", mixed, scrambled["text"]),
    ):
        heard = [t for batch in bar(_batches(sounds), f"words, {name}") for t in judges.transcribe(batch)]
        values[f"wer_{name}"] = wer.corpus_wer(list(texts), heard)
        values[f"wer_{name}_mean"] = float(
            np.mean([wer.wer(t, h) for t, h in zip(texts, heard, strict=True)])
        )
    chosen = set(manifest.sample(min(quality_utterances, len(table)), profile.seed)["utterance"])
    positions = [index for index, utterance in enumerate(table["utterance"]) if utterance in chosen]
    values |= _quality([(waves[i], copies[i]) for i in positions], device, progress)
    return {
        "profile": profile.name,
        "weights": _weights(profile),
        "utterances": len(table),
        "trials": len(trials),
        "quality_utterances": len(positions),
        "values": {name: round(value, 6) for name, value in values.items()},
        "figures": [target.__dict__ for target in targets(values)],
    }


def targets(values: dict[str, float]) -> list[Target]:
    """The figures to reach beside what was measured."""
    v = values

    def at_most(id: str, what: str, limit: float, note: str = "", words: str = "") -> Target:
        return Target(id, what, words or f"at most {limit:.0%}", f"{v[id]:.2%}{note}", v[id] <= limit)

    def told_apart(encoder: str, what: str, limit: float) -> Target:
        whole, second = (f"eer_{encoder}_{kind}" for kind in ("whole", "second_against_whole"))
        note = (
            f" [{v[f'{whole}_low']:.2%}, {v[f'{whole}_high']:.2%}] (one second against whole {v[second]:.2%} "
        )
        return at_most(whole, what, limit, note + f"[{v[f'{second}_low']:.2%}, {v[f'{second}_high']:.2%}])")

    scrambled_limit = max(SCRAMBLED_TIMES * v["wer_ground_truth"], 0.05)
    return [
        told_apart("ge2e", "world: EER of Resemblyzer's GE2E, whole utterances, across rooms", 0.08),
        told_apart("ecapa", "speaker encoder trained here: EER, same trials", 0.05),
        at_most("wer_ground_truth", "recogniser: corpus WER on ground truth", 0.03),
        at_most("wer_vocoded", "recogniser: corpus WER on vocoded ground truth", 0.05),
        at_most(
            "wer_scrambled",
            "recogniser: corpus WER on scrambled sentences (same words, no grammar)",
            scrambled_limit,
            words="at most 1.5 times that on ground truth, or 5%",
        ),
        Target(
            "vocoder_similarity_ge2e",
            "vocoder: GE2E similarity of ground truth and its vocoded copy",
            "at least 0.98",
            f"{v['vocoder_similarity_ge2e']:.4f}",
            v["vocoder_similarity_ge2e"] >= 0.98,
        ),
        Target(
            "vocoder_mel_error",
            "vocoder: mean absolute log-mel error, beside Griffin-Lim's",
            "lower",
            f"{v['vocoder_mel_error']:.3f} against {v['griffin_lim_mel_error']:.3f}",
            v["vocoder_mel_error"] < v["griffin_lim_mel_error"],
        ),
        Target(
            "vocoder_dnsmos",
            "vocoder: DNSMOS, beside Griffin-Lim's",
            "higher",
            f"{v['vocoder_dnsmos']:.2f} against {v['griffin_lim_dnsmos']:.2f} "
            f"(ground truth {v['ground_truth_dnsmos']:.2f})",
            v["vocoder_dnsmos"] > v["griffin_lim_dnsmos"],
        ),
    ]


def scrambled(profile: Profile | str = "mini") -> str:
    """One sentence: whether the recogniser leans on the grammar of the test sentences.

    From the figures of the present weights, those of a recorded run under way before the committed ones.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    found = [_json(folder / profile.name / "models.json") for folder in (paths.WORKING_ROWS, paths.RESULTS)]
    own = [figures for figures in found if figures.get("weights") == _weights(profile)]
    if not own:
        return (
            "How the recogniser does on scrambled sentences is measured by a recorded run; none was made with these "
            "weights."
        )
    v = own[0]["values"]
    times = v["wer_scrambled"] / v["wer_ground_truth"]
    kind = "so that the word error rates above are {} kind to broken speech"
    if not next(target for target in targets(v) if target.id == "wer_scrambled").reached:
        verdict = "it leans on the grammar, " + kind.format("**too**")
    elif times > SCRAMBLED_TIMES:
        verdict = "it leans on the grammar a little, within its target, " + kind.format("somewhat too")
    else:
        verdict = "it hardly leans on the grammar"
    return (
        f"The recogniser's corpus word error rate on true recordings is {v['wer_ground_truth']:.3f}, and "
        f"{v['wer_scrambled']:.3f} where the same words stand in no order ({times:.1f} times as high): {verdict}."
    )


def trial_eer(
    trials: pd.DataFrame, utterances: pd.DataFrame, first: np.ndarray, second: np.ndarray
) -> statistics.Interval:
    """Equal error rate of a trial list, 0..1, with an interval from resampled speakers.

    trials: columns label (1 same speaker), first, second. utterances: columns utterance, speaker; first, second: (n, d)
    their embeddings, for either side of a trial. Raises ManifestError on a trial of an unknown utterance.
    """
    place = {utterance: index for index, utterance in enumerate(utterances["utterance"])}
    if unknown := (set(trials["first"]) | set(trials["second"])) - place.keys():
        raise ManifestError(f"the trial list names {sorted(unknown)[0]}, which is not in the manifest")
    sides = [[place[u] for u in trials[side]] for side in ("first", "second")]
    speakers = utterances["speaker"].to_numpy()
    return statistics.verification_error(
        cosine(first[sides[0]], second[sides[1]]),
        trials["label"] == 1,
        (speakers[sides[0]], speakers[sides[1]]),
    )


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A committed list with the columns named. Raises ManifestError."""
    try:
        table = pd.read_csv(path, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ManifestError(
            f"{path} cannot be read ({error}); restore it with `git checkout -- {path}`"
        ) from error
    if missing := [column for column in columns if column not in table]:
        raise ManifestError(f"{path}: no column {', '.join(missing)}")
    return table


def _quality(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], device: torch.device, progress: bool
) -> dict[str, float]:
    """Mel error and DNSMOS of the vocoder's copies and of Griffin-Lim's from the same mels."""
    found: dict[str, list[float]] = {
        name: []
        for name in (
            "vocoder_mel_error",
            "griffin_lim_mel_error",
            "ground_truth_dnsmos",
            "vocoder_dnsmos",
            "griffin_lim_dnsmos",
        )
    }
    for wave, copy in tqdm(pairs, desc="sound quality", disable=not progress):
        mel = audio.mel(torch.from_numpy(np.ascontiguousarray(wave)))
        classic = np.asarray(griffin_lim(mel)[0], dtype=np.float32)
        found["vocoder_mel_error"].append(mel_distance(wave, copy))
        found["griffin_lim_mel_error"].append(mel_distance(wave, classic))
        found["ground_truth_dnsmos"].append(dnsmos.overall(wave))
        found["vocoder_dnsmos"].append(dnsmos.overall(copy))
        found["griffin_lim_dnsmos"].append(dnsmos.overall(classic))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _batches(items: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    return [list(items[start : start + BATCH]) for start in range(0, len(items), BATCH)]


def _embed(
    embed: Callable[[list[np.ndarray]], dict[str, np.ndarray]], batches: Iterable[list[np.ndarray]]
) -> dict[str, np.ndarray]:
    parts: Iterator[dict[str, np.ndarray]] = (embed(batch) for batch in batches)
    collected = list(parts)
    return {name: np.concatenate([part[name] for part in collected]) for name in collected[0]}


def _json(path: Path) -> dict[str, Any]:
    """Kept figures; empty where there are none, or the file is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _weights(profile: Profile) -> dict[str, str]:
    """What the figures were measured of: the hash of embedded weights, else the repository."""
    return {
        name: getattr(profile.sources, name) or hub.read_card(name, profile)["sha256"]
        for name in ("recognizer", "speaker_encoder", "vocoder")
    }
