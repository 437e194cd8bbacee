"""What the adapters know and what they do: rooms and speakers in the embedding, and how the output follows a wish.

What needs no trained weights: sizes, and an untrained basis. The rest asks for `hub.ADAPTERS`; `trained` tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML
from matplotlib.figure import Figure
from torch import Tensor

from pvlib import config, hub
from pvlib.adapters import Adapters
from pvlib.audio import AudioError
from pvlib.config import EMOTIONS, TRAITS, Profile, get_profile
from pvlib.metrics.eer import equal_error_rate
from pvlib.oes import OES
from pvlib.study import examples, ledger, listen, prosody, statistics
from pvlib.study import manifest as manifests
from pvlib.study.architecture import parameters_of
from pvlib.study.comparisons import many
from pvlib.study.look import styled
from pvlib.systems.base import Request
from pvlib.voice import Job, PersonaVoice

COMMAND = "pvlib train adapters"
PARTS = ("whole", "timbre", "environment")
SCALES = (0.1, 1.0)  # env_scale at its start: the paper's, and the one it calls a disaster
WEIGHTS = (0.0, 0.5, 1.0)
CLEANER = {
    "background": 1,
    "t60": -1,
    "snr": 1,
}  # where each measure of `prosody.ROOM` goes in a cleaner room
STEPS = 16  # ODE steps of what is synthesised here
EER_RESAMPLES = 500  # of speakers: tens of thousands of trials make each one slow
PACE = "rate"  # of `prosody.PROSODY`
SHARE = 10  # one utterance in so many of a complete study
QUICK = 2  # utterances of another: each is spoken under a dozen wishes
WHOLE_ROOM, TIMBRE_ROOM = 3.0, 1.5  # targets, in multiples of chance, set before anything was measured
TARGET_P, TARGET_MEASURES = 0.01, 2
# Which way the mini world moves each measure; a test holds them to it.
EMOTION_SIGNS = {
    "happy": {"f0": 1, "f0_range": 1, "rate": 1, "energy": 1},
    "sad": {"f0": -1, "f0_range": -1, "rate": -1, "energy": -1},
    "angry": {"f0": 1, "f0_range": 1, "rate": 1, "energy": 1},
}
TRAIT_SIGNS = {
    "openness": {"f0_range": 1, "rate": 1},
    "conscientiousness": {"f0_range": -1, "rate": -1, "energy": 1},
    "extraversion": {"f0": 1, "f0_range": 1, "rate": 1, "energy": 1},
    "agreeableness": {"f0": 1, "f0_range": 1, "rate": -1, "energy": -1},
    "neuroticism": {"f0": 1, "f0_range": -1, "rate": 1, "energy": -1},
}


def trained(profile: Profile | str = "mini") -> bool:
    """Whether this profile has weights of the adapters."""
    profile = get_profile(profile) if isinstance(profile, str) else profile
    return hub.weights_path(hub.ADAPTERS, profile).exists()


def size(profile: Profile | str, samples: int) -> int:
    """How many utterances are synthesised for each measurement, of a study with `samples`."""
    profile = get_profile(profile) if isinstance(profile, str) else profile
    return profile.part(samples, SHARE, QUICK)


# Without any trained weights


def parameters() -> pd.DataFrame:
    """Parameters of both profiles, counted on the meta device, a line per part; the last column is what the paper says.

    The copies of the last blocks take the place of the backbone's own, so the total holds them once.
    """
    columns = {}
    for name, profile in config.PROFILES.items():
        with torch.device("meta"):
            from pvlib import backbone

            vocabulary = Path(str(files("f5_tts").joinpath("infer/examples/vocab.txt")))
            known = None if profile.backbone.vocabulary else hub.read_vocabulary(vocabulary)
            network = backbone.build(profile.backbone, known)
            module = Adapters(profile.adapters, network.transformer)
        parts = {
            part: parameters_of(getattr(module, part))
            for part in ("oes", "emotion", "tempo", "film", "blocks")
        }
        learned, frozen = sum(parts.values()), parameters_of(network)
        total = frozen + learned - parts["blocks"]
        columns[name] = {
            "OES": parts["oes"],
            "embedding of the emotion": parts["emotion"],
            "tempo": parts["tempo"],
            "FiLM": parts["film"],
            "OES and FiLM": parts["oes"] + parts["film"],
            "copies of the last blocks": parts["blocks"],
            "trainable": learned,
            "backbone": frozen,
            "in all": total,
            "trainable share": learned / total,
        }
    quotes = {claim.id: claim.quote for claim in ledger.load()}
    table = pd.DataFrame(
        {name: {k: _written(v) for k, v in column.items()} for name, column in columns.items()}
    )
    paper = {"OES and FiLM": quotes["only-adapters"], "trainable": quotes["trainable-total"]}
    return table.assign(**{"the paper": pd.Series(paper)}).fillna("-")


def _written(value: float) -> str:
    return f"{value:.2%}" if isinstance(value, float) else f"{value:,}"


def first_seconds(profile: Profile | str, samples: int, seed: int = 42) -> tuple[pd.DataFrame, Tensor]:
    """The utterances of a study of the test set and the embeddings of their one-second clips, (n, 192)."""
    profile = get_profile(profile) if isinstance(profile, str) else profile
    found = manifests.read(profile.manifest)
    rows = found.sample(samples, seed)
    encoder = hub.load_speaker_encoder(profile)
    return rows, encoder.embed([request.clip for request in found.requests(rows)]).cpu().clone()


def untrained(embedding: Tensor, rows: pd.DataFrame, bases: int = 20) -> pd.DataFrame:
    """What random bases leave of the voice, a line per `env_scale` of its start, and per part.

    cosine: to the whole embedding, mean over clips and bases, with the lowest; by_formula: sqrt(1 - (2 s - s^2) k / d)
    for vectors without a favoured direction. eer: telling speakers apart by the timbre, mean of the bases.
    """
    lines = []
    for scale in SCALES:
        cosines, errors = [], []
        for seed in range(bases):
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(seed)
                oes = OES(env_scale_init=scale)
                timbre, _ = oes.split(embedding)
            cosines.append(torch.cosine_similarity(timbre, embedding))
            errors.append(speaker_eer(timbre, rows))
        every, (d, k) = torch.cat(cosines), oes.env_basis.shape
        gone = k / d
        expected = (1 - scale * gone) / np.sqrt(1 - (2 * scale - scale**2) * gone)
        lines.append((scale, float(every.mean()), float(every.min()), expected, float(np.mean(errors))))
    columns = ["env_scale", "cosine", "lowest cosine", "cosine expected of random vectors", "speaker EER"]
    table = pd.DataFrame(lines, columns=columns)
    return table.assign(**{"speaker EER, whole": speaker_eer(embedding, rows)})


def _rooms_known(rows: pd.DataFrame) -> bool:
    """Whether rows of a manifest say in which room each clip was recorded; of LibriTTS they do not."""
    return "room" in rows and bool((rows["room"] != "").any())


def speaker_eer(embedding: Tensor, rows: pd.DataFrame) -> float:
    """Equal error rate of telling the speakers of these clips apart by cosine, pairs of two rooms; NaN for none."""
    scores, same, _ = speaker_trials(embedding, rows)
    return equal_error_rate(scores, same) if 0 < same.sum() < len(same) else float("nan")


def speaker_trials(
    embedding: Tensor, rows: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Trials of these clips, pairs of two rooms: cosine, whether one speaker says both, and who speaks on each side."""
    normal = torch.nn.functional.normalize(embedding, dim=-1)
    scores = (normal @ normal.T).numpy()
    speaker = rows["speaker"].to_numpy()
    room = rows["room"].to_numpy() if _rooms_known(rows) else np.arange(len(rows))  # unknown: all pairs count
    one, other = np.triu_indices(len(rows), 1)
    apart = room[one] != room[other]
    one, other = one[apart], other[apart]
    sides = (speaker[one], speaker[other])
    return scores[one, other], sides[0] == sides[1], sides


def untrained_text(table: pd.DataFrame) -> str:
    """One sentence: whether a random basis at scale 1 explains the collapse that the paper reports."""
    small, full = (table.set_index("env_scale").loc[scale] for scale in SCALES)
    quoted = next(claim.quote for claim in ledger.load() if claim.id == "oes-scale-disaster")
    change = full["speaker EER"] - full["speaker EER, whole"]
    verdict = "does not explain" if full["cosine"] > 0.5 else "may explain"
    apart = "cannot be told from so few utterances" if np.isnan(change) else f"changes by {change:+.3f}"
    return (
        f"An untrained basis leaves a cosine of {small['cosine']:.3f} to the whole embedding at `env_scale` "
        f"{SCALES[0]:g} and {full['cosine']:.3f} at {SCALES[1]:g}; there the equal error rate of telling speakers "
        f'apart {apart}. The paper: "{quoted}". What the projection removes {verdict} a collapse of '
        "that size by itself."
    )


# What OES reads


def load(profile: Profile) -> tuple[OES, dict[str, tuple[Tensor, Tensor]], list[str]]:
    """The trained OES, the linear readers of rooms that the trainer left beside it, and their classes. WeightsError."""
    state = hub.read_weights(hub.ADAPTERS, profile)
    oes = OES(profile.adapters.speaker_dim, profile.adapters.environment_dim)
    oes.load_state_dict({k.removeprefix("oes."): v for k, v in state.items() if k.startswith("oes.")})
    readers = {part: (state[f"probes.{part}.weight"], state[f"probes.{part}.bias"]) for part in PARTS}
    return oes.requires_grad_(False), readers, hub.read_card(hub.ADAPTERS, profile)["rooms"]


def probes(profile: Profile | str, rows: pd.DataFrame, embedding: Tensor) -> pd.DataFrame:
    """Rooms and speakers in the whole embedding and its parts, a line each.

    The readers are linear and learned on training speakers in training places; these clips are of neither. room:
    balanced accuracy with a 95 % interval from resampled speakers, and both in multiples of chance. speaker EER: see
    `speaker_eer`, with such an interval; all NaN where no speaker is heard twice.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    columns = ["part", "room accuracy", "room accuracy, low", "room accuracy, high"]
    columns += ["times chance", "times chance, low", "times chance, high"]
    columns += ["speaker EER", "speaker EER, low", "speaker EER, high"]
    if not trained(profile):
        return pd.DataFrame(columns=columns)
    oes, readers, rooms = load(profile)
    known = rows["room"].isin(rooms).to_numpy()
    if not known.any():  # real speech, whose rooms nobody labelled
        return pd.DataFrame(columns=columns)
    rows, embedding = rows[known], embedding[torch.tensor(known)]
    timbre, environment = oes.split(embedding)
    label = torch.tensor([rooms.index(room) for room in rows["room"]])
    lines = []
    for part, x in zip(PARTS, (embedding, timbre, environment), strict=True):
        right = (torch.nn.functional.linear(x, *readers[part]).argmax(1) == label).numpy().astype(float)
        weight = 1 / rows.groupby("room")["room"].transform("size").to_numpy()
        totals = [right * weight, weight]
        found = statistics.cluster_bootstrap(lambda s, n: s / n, totals, rows["speaker"])
        trials = speaker_trials(x, rows)
        errors = (np.nan, np.nan, np.nan)
        if 0 < trials[1].sum() < len(trials[1]):
            told = statistics.verification_error(*trials, resamples=EER_RESAMPLES)
            errors = (told.value, told.low, told.high)
        accuracy = np.array([found.value, found.low, found.high])
        lines.append((part, *accuracy, *accuracy * len(rooms), *errors))
    return pd.DataFrame(lines, columns=columns)


def probes_text(table: pd.DataFrame) -> str:
    """Sentences: rooms in whole and timbre against the targets, speakers in the timbre against the whole."""
    if table.empty:
        return missing()
    by = table.set_index("part")
    whole, timbre = by.loc["whole"], by.loc["timbre"]
    times = ["times chance", "times chance, low", "times chance, high"]
    read = statistics.against_target(*whole[times], WHOLE_ROOM)
    left = statistics.against_target(*timbre[times], TIMBRE_ROOM, "at most")
    return (
        f"The room is read off the whole embedding at {whole['times chance']:.2f} times chance (target: at least "
        f"{WHOLE_ROOM:g}, {read}) and off the timbre at {timbre['times chance']:.2f} times (target: at most "
        f"{TIMBRE_ROOM:g}, {left}). Speakers are told apart with an equal error rate of "
        f"{_with_interval(whole)} by the whole and {_with_interval(timbre)} by the timbre (target: no worse, "
        f"{_no_worse(whole, timbre)})."
    )


def _no_worse(whole: pd.Series, timbre: pd.Series) -> str:
    """Whether speakers are told apart no worse by the timbre than by the whole, and whether the intervals part."""
    met = bool(timbre["speaker EER"] <= whole["speaker EER"])
    better, worse = (timbre, whole) if met else (whole, timbre)
    settled = better["speaker EER, high"] < worse["speaker EER, low"]
    told = "met" if met else "missed"
    return told if settled else f"{told} by the estimates, whose intervals overlap"


def _with_interval(line: pd.Series) -> str:
    low, high = line["speaker EER, low"], line["speaker EER, high"]
    return f"{line['speaker EER']:.3f} [{low:.3f}, {high:.3f}]"


# What is heard


def requests(
    profile: Profile | str,
    count: int,
    seed: int,
    bucket: str,
    rooms: Sequence[str] = (),
    pipeline: PersonaVoice | None = None,
) -> list[Request]:
    """The first `count` utterances of the study's order of one text length; rooms: only clips from these.

    pipeline: clips that it cannot clone are passed over. Raises AudioError or TextError when it can clone none.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    found = manifests.read(profile.manifest)
    rows = found.sample(None, seed)
    rows = rows[rows["bucket"] == bucket]
    if rooms and _rooms_known(rows):
        rows = rows[rows["room"].isin(rooms)]
    return examples.speakable(pipeline, found, rows, count)


def voice(profile: Profile | str, steps: int = STEPS, **inference: object) -> PersonaVoice | None:
    """The pipeline with adapters; None where they are not trained, which the measurements below take as no rows."""
    name = profile if isinstance(profile, str) else profile.name
    if not trained(name):
        return None
    return PersonaVoice.load(name, use_adapters=True, steps=steps, **inference)


def with_inference(pipeline: PersonaVoice, **changes: object) -> PersonaVoice:
    """The same models with other parameters."""
    profile = replace(pipeline.profile, inference=replace(pipeline.inference, **changes))
    models = (pipeline.backbone, pipeline.vocoder, pipeline.recognizer, pipeline.speaker_encoder)
    return PersonaVoice(profile, *models, adapters=pipeline.adapters)


def wishes() -> dict[str, dict[str, object]]:
    """Names of what is wished for, and what of a `Job` says so: emotions at two strengths, traits at both ends."""
    found: dict[str, dict[str, object]] = {"neutral": {"emotion": "neutral"}}
    for emotion in EMOTIONS[1:]:
        for strength in (0.5, 1.0):
            found[f"{emotion} {strength:g}"] = {"emotion": emotion, "strength": strength}
    for trait in TRAITS:
        for value in (-1.0, 1.0):
            traits = dict.fromkeys(TRAITS, 0.0) | {trait: value}
            found[f"{trait} {value:+g}"] = {"emotion": "neutral", "persona": traits}
    return found


def spoken(
    pipeline: PersonaVoice | None,
    asked: Sequence[Request],
    wanted: Mapping[str, Mapping[str, object]] | None = None,
) -> pd.DataFrame:
    """Every request with every wish, from the same noise, gate open: a row each.

    Columns: utterance, speaker, wish, and `prosody.PROSODY`.
    """
    columns = ["utterance", "speaker", "wish", *prosody.PROSODY]
    if pipeline is None or not all(pipeline.adapters.hears(part) for part in ("persona", "emotion")):
        return pd.DataFrame(columns=columns)  # no adapters, or of speech without such labels
    wanted = wishes() if wanted is None else wanted
    pipeline = with_inference(pipeline, film_gate="always")
    jobs, keys = [], []
    for request in asked:
        reference = pipeline.reference(request.clip, name=f"the clip of {request.utterance}")
        for name, wish in wanted.items():
            jobs.append(Job(reference, request.text, request.seed, **wish))
            keys.append((request.utterance, request.speaker, name, request.text))
    made = pipeline.synthesise(jobs)
    lines = [
        {"utterance": u, "speaker": s, "wish": name} | prosody.speaking(speech.wave, text)
        for (u, s, name, text), speech in zip(keys, made, strict=True)
    ]
    return pd.DataFrame(lines, columns=columns)


def moved(rows: pd.DataFrame) -> pd.DataFrame:
    """How each wish moves each measure: against neutral for emotions, high against low pole for traits; a line each.

    Columns: wish, measure, difference with a 95 % interval from resampled speakers (low, high), n, p (paired t),
    trained (which way the world moves it: 1, -1, or 0), as_trained, p_holm over the table.
    """
    pairs = [(f"{e} 1", "neutral", EMOTION_SIGNS[e]) for e in EMOTION_SIGNS]
    pairs += [(f"{t} +1", f"{t} -1", TRAIT_SIGNS[t]) for t in TRAIT_SIGNS]
    lines = []
    for wish, base, signs in pairs:
        one, other = (rows[rows["wish"] == name].set_index("utterance") for name in (wish, base))
        if one.empty or other.empty:
            continue
        for measure in prosody.PROSODY:
            both = pd.DataFrame({"a": one[measure], "b": other[measure], "speaker": one["speaker"]}).dropna()
            if len(both) < 2:
                continue
            found = statistics.paired_bootstrap(both["a"], both["b"], both["speaker"])
            p = statistics.paired_test(both["a"], both["b"]).p
            lines.append(
                (wish, measure, found.value, found.low, found.high, found.n, p, signs.get(measure, 0))
            )
    columns = ["wish", "measure", "difference", "low", "high", "n", "p", "trained"]
    table = pd.DataFrame(lines, columns=columns)
    as_trained = np.sign(table["difference"]) == table["trained"]
    return table.assign(as_trained=as_trained, p_holm=statistics.holm(table["p"]))


def moved_table(table: pd.DataFrame) -> pd.DataFrame:
    """`moved` for reading: each measure with the unit of its difference and interval."""
    return table.assign(measure=table["measure"].map(prosody.PROSODY))


def moved_text(table: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Sentences: per emotion how many measures moved as trained beyond doubt, and whether strength is monotone."""
    if table.empty:
        return missing()
    parts, followed = [], set()
    for emotion in EMOTION_SIGNS:
        own = table[table["wish"] == f"{emotion} 1"]
        sure = own[own["as_trained"] & (own["p_holm"] < TARGET_P)]
        followed |= set(sure["measure"])
        steps = _by_strength(rows, emotion)
        order = "monotone" if bool((np.diff(steps) > 0).all()) else "not monotone"
        reached = "met" if len(sure) >= TARGET_MEASURES else "missed"
        which = ", ".join(prosody.PROSODY[measure] for measure in sure["measure"]) or "none"
        parts.append(
            f"{emotion}: {len(sure)} of {len(own)} measures moved as trained with Holm's p below {TARGET_P:g} "
            f"({which}; target: at least {TARGET_MEASURES}, {reached}); with strength 0, 0.5, 1 the "
            f"mean shift of all is {order}"
        )
    traits = table[~table["wish"].str.split().str[0].isin(EMOTION_SIGNS) & (table["trained"] != 0)]
    sure = traits[traits["as_trained"] & (traits["p_holm"] < statistics.ALPHA)]
    deaf = [label for measure, label in prosody.PROSODY.items() if measure not in followed]
    paced = int((sure["measure"] == PACE).sum())
    return (
        "; ".join(parts)
        + (f". No emotion moves {' and '.join(deaf)} so" if deaf else "")
        + f". Traits: {len(sure)} of {len(traits)} trained effects hold after Holm's correction (p below "
        f"{statistics.ALPHA:g}). The {prosody.PROSODY[PACE]} is the length's doing, of which FiLM knows nothing: by "
        f"FiLM alone an emotion moves {len(followed - {PACE})} {many(len(followed - {PACE}), 'measure')}, and of the "
        f"traits' effects {len(sure) - paced} hold."
    )


def _by_strength(rows: pd.DataFrame, emotion: str) -> list[float]:
    """Mean shift in the trained direction at strengths 0, 0.5 and 1, each measure in deviations of the neutral rows."""
    means = rows.groupby("wish")[list(prosody.PROSODY)].mean()
    spread = rows[rows["wish"] == "neutral"][list(prosody.PROSODY)].std().clip(lower=1e-6)
    signs = pd.Series(EMOTION_SIGNS[emotion])
    shifts = ((means - means.loc["neutral"]) / spread)[signs.index] * signs
    return [float(shifts.loc[name].mean()) for name in ("neutral", f"{emotion} 0.5", f"{emotion} 1")]


def trial(
    pipeline: PersonaVoice | None,
    request: Request,
    emotion: str = "happy",
    strength: float = 1.0,
    env_weight: float = 0.0,
    gate: str = "always",
    guidance: float = 2.5,
) -> HTML:
    """One utterance, plain and as wished, from the same noise: players, and what is measured of each."""
    if pipeline is None:
        return HTML(missing())
    if not pipeline.adapters.hears("emotion"):
        return HTML(f"The adapters of the profile {pipeline.profile.name} were trained without emotions.")
    strengths = {"cfg_strength": guidance, "laag_cfg_base": guidance}
    own = with_inference(pipeline, film_gate=gate, env_weight=env_weight, **strengths)
    reference = own.reference(request.clip, name=f"the clip of {request.utterance}")
    plain = Job(reference, request.text, request.seed)
    asked = plain if gate == "off" else replace(plain, emotion=emotion, strength=strength)
    shut = with_inference(pipeline, film_gate="off", **strengths)
    waves = {
        f"plain, guidance {guidance:g}": shut.synthesise([plain])[0].wave,
        f"gate {gate}, {emotion} {strength:g}, env_weight {env_weight:g}": own.synthesise([asked])[0].wave,
    }
    captions, labels = {}, prosody.PROSODY | prosody.ROOM
    for name, wave in waves.items():
        measured = prosody.speaking(wave, request.text) | prosody.sounding(wave)
        captions[name] = "; ".join(f"{labels[key]} {value:.2f}" for key, value in measured.items())
    return listen.players(waves, captions)


def weighed(
    pipeline: PersonaVoice, asked: Sequence[Request], weights: Sequence[float] = WEIGHTS
) -> pd.DataFrame:
    """Every request at every `env_weight`, gate open: utterance, speaker, env_weight, and `prosody.ROOM`."""
    if pipeline is None:
        return pd.DataFrame(columns=["utterance", "speaker", "env_weight", *prosody.ROOM])
    lines = []
    for weight in weights:
        own = with_inference(pipeline, film_gate="always", env_weight=weight)
        jobs = [Job(own.reference(r.clip, name=f"the clip of {r.utterance}"), r.text, r.seed) for r in asked]
        for request, speech in zip(asked, own.synthesise(jobs), strict=True):
            line = {"utterance": request.utterance, "speaker": request.speaker, "env_weight": weight}
            lines.append(line | prosody.sounding(speech.wave))
    return pd.DataFrame(lines, columns=["utterance", "speaker", "env_weight", *prosody.ROOM])


def weighed_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`weighed` in means with 95 % intervals from resampled speakers, a line per weight and measure."""
    lines = []
    for weight, own in rows.groupby("env_weight"):
        for measure, label in prosody.ROOM.items():
            known = own.dropna(subset=[measure])
            if known.empty:
                continue
            found = statistics.cluster_bootstrap_mean(known[measure], known["speaker"])
            lines.append((weight, label, found.value, found.low, found.high, found.n))
    return pd.DataFrame(lines, columns=["env_weight", "measure", "mean", "low", "high", "n"])


def weighed_text(rows: pd.DataFrame) -> str:
    """One sentence: how the output changes from the studio to the original microphone, and whether that way."""
    if rows.empty:
        return missing()
    first, last = (rows[rows["env_weight"] == w].set_index("utterance") for w in (min(WEIGHTS), max(WEIGHTS)))
    parts = []
    for measure, label in prosody.ROOM.items():
        both = pd.DataFrame({"a": last[measure], "b": first[measure], "speaker": first["speaker"]}).dropna()
        if both.empty:
            continue
        found = statistics.paired_bootstrap(both["a"], both["b"], both["speaker"])
        way = "not shown"
        if not found.low <= 0 <= found.high:
            way = "as expected" if found.value * CLEANER[measure] < 0 else "**the other way**"
        parts.append(
            f"{label} {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}] (n = {found.n}; {way})"
        )
    told = ", ".join(parts)
    return (
        f"From `env_weight` {min(WEIGHTS):g} to {max(WEIGHTS):g}: {told}; intervals over speakers, no test."
    )


def drift(pipeline: PersonaVoice | None, asked: Sequence[Request]) -> pd.DataFrame:
    """Similarity to the clip, chunk by chunk, with FiLM's gate off and on: utterance, speaker, gate, chunk, secs.

    SECS by ECAPA, the pipeline's own speaker encoder. Texts of one chunk, and chunks too short to embed, are left out.
    """
    lines = []
    for gate in ("off", "always") if pipeline is not None else ():
        own = with_inference(pipeline, film_gate=gate)
        jobs = [Job(own.reference(r.clip, name=f"the clip of {r.utterance}"), r.text, r.seed) for r in asked]
        for request, job, speech in zip(asked, jobs, own.synthesise(jobs), strict=True):
            if len(speech.chunks) < 2:
                continue
            shares = np.array([chunk.frames - len(job.reference.mel) for chunk in speech.chunks], dtype=float)
            ends = np.round(np.cumsum(np.append(0, shares)) / shares.sum() * len(speech.wave)).astype(int)
            for k, (start, stop) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
                try:
                    heard = own.speaker_encoder.embed([speech.wave[start:stop]])[0].cpu()
                except AudioError:
                    continue
                secs = float(heard @ job.reference.embedding)
                lines.append((request.utterance, request.speaker, gate, k, secs))
    found = pd.DataFrame(lines, columns=["utterance", "speaker", "gate", "chunk", "secs"])
    return found.astype({"chunk": int, "secs": float})


def drift_text(rows: pd.DataFrame) -> str:
    """One sentence: SECS of the last chunk less that of the first, with the gate off and on."""
    if rows.empty:
        return missing()
    parts = []
    for gate, own in rows.groupby("gate", sort=False):
        wide = own.sort_values("chunk").groupby("utterance")
        ends = pd.DataFrame(
            {"first": wide["secs"].first(), "last": wide["secs"].last(), "who": wide["speaker"].first()}
        )
        found = statistics.paired_bootstrap(ends["last"], ends["first"], ends["who"])
        parts.append(
            f"gate {gate}: {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}], mean {own['secs'].mean():.3f}"
        )
    return f"SECS of the last chunk less that of the first, n = {rows['utterance'].nunique()}: {'; '.join(parts)}."


# Pictures


@styled
def untrained_figure(embedding: Tensor, bases: int = 5) -> Figure:
    """What random bases leave of clips: cosine to the whole embedding, a histogram per `env_scale` of the start."""
    figure = Figure(figsize=(6.4, 2.7), layout="constrained")
    ax = figure.subplots()
    for scale, colour in zip(SCALES, ("#0072b2", "#d55e00"), strict=True):
        cosines = []
        for seed in range(bases):
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(seed)
                cosines.append(
                    torch.cosine_similarity(OES(env_scale_init=scale).split(embedding)[0], embedding)
                )
        ax.hist(torch.cat(cosines).numpy(), bins=30, color=colour, alpha=0.75, label=f"env_scale {scale:g}")
    ax.set(xlabel="cosine of timbre and whole embedding", ylabel="pairs of clip and basis (count)")
    ax.legend()
    return figure


@styled
def moved_figure(table: pd.DataFrame) -> Figure:
    """Differences of each measure with 95 % intervals; open markers where the world has no effect to learn."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    if table.empty:
        return _unknown(figure)
    names = list(dict.fromkeys(table["wish"]))
    for ax, (measure, label) in zip(
        figure.subplots(1, len(prosody.PROSODY), sharey=True), prosody.PROSODY.items(), strict=True
    ):
        own = table[table["measure"] == measure].set_index("wish").reindex(names)
        for y, line in enumerate(own.itertuples()):
            spread = [[line.difference - line.low], [line.high - line.difference]]
            colour = {1: "#d55e00", -1: "#0072b2"}.get(line.trained, "#7f7f7f")
            fill = colour if line.trained else "white"
            ax.errorbar([line.difference], [y], xerr=spread, fmt="o", color=colour, mfc=fill, ms=5, lw=1.2)
        ax.axvline(0, color="#7f7f7f", lw=0.8)
        ax.set(
            xlabel=f"change of\n{label}",
            yticks=range(len(names)),
            yticklabels=names,
            ylim=(len(names) - 0.5, -0.5),
        )
    for colour, fill, words in (
        ("#d55e00", "#d55e00", "up in the mini world"),
        ("#0072b2", "#0072b2", "down in the mini world"),
        ("#7f7f7f", "white", "not moved there"),
    ):
        ax.plot([], [], "o", color=colour, mfc=fill, ms=5, label=words)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


@styled
def weighed_figure(rows: pd.DataFrame) -> Figure:
    """Background, decay and noise of the output against `env_weight`: a line per utterance, thick the mean."""
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    if rows.empty:
        return _unknown(figure)
    for ax, (measure, label) in zip(figure.subplots(1, len(prosody.ROOM)), prosody.ROOM.items(), strict=True):
        for _, own in rows.groupby("utterance"):
            ax.plot(own["env_weight"], own[measure], color="#b8b8b8", lw=0.8)
        mean = rows.groupby("env_weight")[measure].mean()
        ax.plot(mean.index, mean, color="#0072b2", marker="o", lw=2)
        ax.set(xlabel="env_weight (share of the room)", ylabel=label)
    return figure


def _unknown(figure: Figure) -> Figure:
    """Instead of a picture of nothing."""
    ax = figure.subplots()
    ax.set_axis_off()
    ax.set_title(f"no adapters are trained: {COMMAND}")
    return figure


def missing() -> str:
    """What a notebook says where nothing could be measured."""
    if trained():
        return f"Too few utterances to tell, or a profile whose adapters are not trained (`{COMMAND}`)."
    return (
        f"Adapters that learnt this are not here (`{hub.ADAPTERS}.safetensors` of the profile `mini`), so what needs "
        f"them is left out. Train them with `{COMMAND}`."
    )
