"""Further judges of the paper, for profiles that name them: UTMOS for quality, SIM-o for likeness. Neither listens.

UTMOS is the strong learner of UTMOS22 (Saeki et al., 2022) with its published weights, in the class of `utmos-pytorch`.
SIM-o is the cosine of two speaker embeddings, of the utterance and of the original clip, by the WavLM that Hugging Face
carries; papers that print SIM-o mostly use a larger WavLM, whose numbers are others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pvlib import hub, models
from pvlib.audio import SAMPLE_RATE, resample
from pvlib.config import Profile
from pvlib.hub import WeightsError
from pvlib.metrics.judges import Exhibit, Judges, Verdict
from pvlib.metrics.secs import cosine
from pvlib.systems.fingerprint import module_path, source_hash

RATE = 16_000  # what both networks hear
SHORTEST = (
    RATE // 2
)  # a shorter utterance is repeated until it lasts so long; WavLM's head needs a third of a second
LISTENER = 288  # of the 3,000 that UTMOS was trained with, the one that its authors let speak for all
NAMES = {  # of the published file -> of the class; the file holds one domain and one listener
    r"wav2vec2\.": "feature_extractors.0.ssl_model.",
    r"blstm\.": "output_layers.0.decoder_rnn.",
    r"projection\.0\.": "output_layers.1.net.0.",
    r"projection\.2\.": "output_layers.1.net.3.",
}
TABLES = {  # a table of which the file holds the row that is used
    "domain_emb": "feature_extractors.1.embedding.weight",
    "judge_emb": "output_layers.0.judge_embedding.weight",
}
UNUSED = "wav2vec2.mask_emb"  # of the pretraining


@dataclass(frozen=True)
class ProxyVerdict(Verdict):
    """A verdict with the proxies: utmos, 1 (bad) to 5; sim_o, -1 to 1. NaN for one that the profile does not name."""

    utmos: float = float("nan")
    sim_o: float = float("nan")


class UTMOS:
    """UTMOS22's strong learner. One utterance at a time, since padding moves its score."""

    def __init__(self, state: Mapping[str, Tensor], device: torch.device | str = "cpu") -> None:
        """state: as published (`official_names`). Raises WeightsError where names or shapes are others."""
        self.device = torch.device(device)
        self.network = build_utmos()
        fit(self.network, official_names(state, self.network))
        self.network.eval().requires_grad_(False).to(self.device)

    @torch.inference_mode()
    def score(self, waves: Sequence[np.ndarray]) -> list[float]:
        """The score of each waveform (s,) at 24 kHz, 1 (bad) to 5 (excellent)."""
        found = []
        for wave in waves:
            heard = torch.from_numpy(_heard(wave)).to(self.device)[None, None]
            domain = torch.zeros(1, dtype=torch.int, device=self.device)
            frames = self.network(heard, domain, torch.full_like(domain, LISTENER))
            found.append(2 * float(frames.mean()) + 3)
        return found


def build_utmos() -> nn.Module:
    """The network without its weights."""
    import warnings

    from utmos_pytorch.utmos_torch import UTMOSModel

    with warnings.catch_warnings():  # of a form of weight norm that torch has grown out of
        warnings.simplefilter("ignore", FutureWarning)
        return UTMOSModel()


def official_names(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The published weights under the names of the class. A row that stands for a table fills all of it."""
    own, found = network.state_dict(), {}
    for name, weight in state.items():
        if name in TABLES:
            whole = own[TABLES[name]].shape
            fits = weight.shape == (1, whole[1])
            found[TABLES[name]] = weight.expand(whole) if fits else weight  # which `fit` refuses
        elif name != UNUSED:
            for theirs, ours in NAMES.items():
                name = re.sub(f"^{theirs}", ours, name)
            found[name] = weight
    return found


def fit(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load weights that must be all of the network's and no others. Raises WeightsError."""
    try:
        network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"UTMOS: these are not the weights of the strong learner ({reason}); {hub.REPLACE}"
        ) from error


class WavLMSpeaker:
    """Speaker embeddings by WavLM with an x-vector head."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        """folder: config, feature extractor and weights as published. Raises WeightsError."""
        from transformers import AutoFeatureExtractor, WavLMForXVector

        self.device = torch.device(device)
        with models.reading(folder, "WavLM"):
            self.extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
            network, told = WavLMForXVector.from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
        if told["missing_keys"] or told["mismatched_keys"]:
            lacking = ", ".join(sorted(map(str, [*told["missing_keys"], *told["mismatched_keys"]]))[:3])
            raise WeightsError(f"{folder} is not WavLM with an x-vector head ({lacking}); {hub.REPLACE}")
        self.network = network.eval().requires_grad_(False).to(self.device)

    @torch.inference_mode()
    def embed(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Embeddings (b, 512) of waveforms at 24 kHz, of norm 1; one at a time, so that none depends on another."""
        found = []
        for wave in waves:
            heard = self.extractor(_heard(wave), sampling_rate=RATE, return_tensors="pt")
            vector = self.network(heard["input_values"].to(self.device)).embeddings[0].float().cpu()
            found.append(nn.functional.normalize(vector, dim=0).numpy())
        return np.stack(found)


def _heard(wave: np.ndarray) -> np.ndarray:
    """Samples at 16 kHz, half a second of them at least. Raises ValueError where there are none."""
    if not len(wave):
        raise ValueError("a proxy needs samples to hear")
    heard = resample(np.ascontiguousarray(wave, dtype=np.float32), SAMPLE_RATE, RATE)
    return np.resize(heard, max(len(heard), SHORTEST))  # repeats it


class ProxyJudges(Judges):
    """The judges of a profile and the proxies that it names, loaded at the first judgement."""

    def __init__(self, profile: Profile, device: torch.device | str | None = None):
        super().__init__(profile, device)
        self._proxies: dict[str, Any] = {}

    def fingerprint(self) -> dict[str, Any]:
        own = {
            "names": sorted(self.profile.proxies),
            "revisions": {name: _model(name).revision for name in sorted(self.profile.proxies)},
            "source": source_hash(module_path(__name__)),
            "utmos-pytorch": version("utmos-pytorch"),
        }
        return super().fingerprint() | {"proxies": own}

    def _load(self) -> None:
        super()._load()
        if not self._proxies:
            self._proxies = {name: load(name, self.device) for name in self.profile.proxies}

    def judge(self, exhibits: Sequence[Exhibit]) -> list[Verdict]:
        """As `Judges.judge`, with the proxies."""
        verdicts = super().judge(exhibits)
        waves = [exhibit.wave for exhibit in exhibits]
        more: list[dict[str, float]] = [{} for _ in exhibits]
        if exhibits and "utmos" in self._proxies:
            for found, score in zip(more, self._proxies["utmos"].score(waves), strict=True):
                found["utmos"] = score
        if exhibits and "sim_o" in self._proxies:
            voices = self._proxies["sim_o"].embed(waves)
            clips = self._proxies["sim_o"].embed([exhibit.clip for exhibit in exhibits])
            for found, voice, clip in zip(more, voices, clips, strict=True):
                found["sim_o"] = float(cosine(voice, clip))
        return [ProxyVerdict(**asdict(v), **found) for v, found in zip(verdicts, more, strict=True)]


def panel(profile: Profile, device: torch.device | str | None = None) -> Judges:
    """The judges of a profile, with the proxies where it names some."""
    return ProxyJudges(profile, device) if profile.proxies else Judges(profile, device)


def _model(name: str) -> models.Model:
    return next(model for model in models.MODELS if model.proxy == name)


def load(name: str, device: torch.device | str = "cpu") -> UTMOS | WavLMSpeaker:
    """One proxy with its published weights, from the caches. Raises WeightsError where they are missing or damaged."""
    model = _model(name)
    path = models.whole(model)
    if name == "sim_o":
        return WavLMSpeaker(path.parent, device)
    return UTMOS(torch.load(path, map_location="cpu", weights_only=True), device)
