"""The model cards of the embedded weights, written out from the JSON beside each file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pvlib import hub, paths
from pvlib.config import Profile
from pvlib.study.rows import write_text

PURPOSE = {
    "backbone": "F5-TTS flow matching: text and a second of voice to a mel spectrogram",
    "backbone-padded": "a second backbone of the same size that reads padded text, as F5-TTS v1 does",
    "vocoder": "Vocos: mel spectrogram to waveform",
    "speaker_encoder": "ECAPA-TDNN: waveform to a 192-d voice, for SECS",
    "recognizer": "CTC recogniser: waveform to words, for WER and the clip's transcript",
    "adapters": "OES and FiLM with copies of the backbone's last blocks: voice, persona, emotion to how it is said",
    "duration-predictor": "FastSpeech's duration predictor, retired by the paper: a text to seconds",
    "sv2tts-encoder": "SV2TTS, first network, beside Resemblyzer's: GE2E, a waveform to a 256-d voice",
    "sv2tts-synthesizer": "SV2TTS, second network: Tacotron 2, text and a voice to a mel spectrogram",
    "sv2tts-vocoder": "SV2TTS, third network: WaveRNN, mel spectrogram to waveform, sample by sample",
}


def write_cards(profile: Profile) -> Path:
    """Write data/checkpoints/<profile>/README.md. Raises WeightsError where a card is missing."""
    lines = [
        f"# Weights of the profile `{profile.name}`",
        "",
        "Trained in this repository on the synthetic speech of the mini world. The figures below are each trainer's",
        "own, on the dev split; what the models are worth on the test set stands in `data/results`. Written by",
        "`pvlib reproduce --record` from the JSON beside each file.",
    ]
    for name, purpose in PURPOSE.items():
        if name in hub.ADDED and not hub.weights_path(name, profile).is_file():
            lines += ["", f"## {name}", "", f"{purpose}. Not trained yet: `pvlib train {name}`."]
            continue
        card = hub.read_card(name, profile)
        lines += [
            "",
            f"## {name}",
            "",
            f"{purpose}.",
            "",
            f"* data: {card['data']}: {card['utterances']:,} utterances, {card['hours']} h",
            f"* command: `{card['command']}`",
            f"* training: {card['steps']:,} steps, {card['seconds'] / 60:.0f} minutes on {card['machine']}",
            f"* file: {card['bytes'] / 1e6:.1f} MB{_stored(card)}, SHA-256 `{card['sha256']}`, {card['date']}",
            *([f"* note: {card['note']}"] if "note" in card else []),
            f"* dev: {', '.join(f'{key} {value:.4g}' for key, value in card['quality'].items())}",
        ]
    return write_text(paths.CHECKPOINTS / profile.name / "README.md", "\n".join(lines) + "\n")


def _stored(card: dict[str, Any]) -> str:
    return f" ({card['stored']})" if "stored" in card else ""
