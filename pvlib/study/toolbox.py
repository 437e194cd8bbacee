"""A bench for the three networks: record or load a clip, look at it, let it speak.

Every button but the recorder is a method, so that no browser is needed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import torch
from IPython.display import HTML, Image, display
from matplotlib.figure import Figure

from pvlib import audio
from pvlib.audio import AudioError
from pvlib.study import listen, look, three_networks
from pvlib.study.pictures import spectrogram
from pvlib.study.three_networks import Stages
from pvlib.systems.sv2tts.encoder import Voiceprint
from pvlib.text import TextError

# The browser records, and offers what it heard as clip.wav; nothing leaves the page.
_RECORDER = """<button>record</button> <a></a><script>
{const [button, link] = [...document.querySelectorAll("#pvlib-recorder > *")]; let taken = [], recorder = null;
button.onclick = async () => {
  if (recorder) { recorder.stop(); return; }
  const stream = await navigator.mediaDevices.getUserMedia({audio: true});
  recorder = new MediaRecorder(stream); taken = []; button.textContent = "stop";
  recorder.ondataavailable = event => taken.push(event.data);
  recorder.onstop = async () => {
    stream.getTracks().forEach(track => track.stop()); recorder = null; button.textContent = "record";
    const sound = await new AudioContext().decodeAudioData(await new Blob(taken).arrayBuffer());
    const x = sound.getChannelData(0), view = new DataView(new ArrayBuffer(44 + 2 * x.length));
    const word = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
    word(0, "RIFF"); view.setUint32(4, 36 + 2 * x.length, true); word(8, "WAVEfmt "); view.setUint32(16, 16, true);
    view.setUint16(20, 1, true); view.setUint16(22, 1, true); view.setUint32(24, sound.sampleRate, true);
    view.setUint32(28, 2 * sound.sampleRate, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
    word(36, "data"); view.setUint32(40, 2 * x.length, true);
    x.forEach((v, i) => view.setInt16(44 + 2 * i, 32767 * Math.max(-1, Math.min(1, v)), true));
    link.href = URL.createObjectURL(new Blob([view], {type: "audio/wav"}));
    link.download = link.textContent = "clip.wav"; };
  recorder.start(); };}
</script>"""


def recorder() -> HTML:
    """A button that records by the browser's microphone and offers the sound as clip.wav, to be loaded below."""
    return HTML(f'<div id="pvlib-recorder">{_RECORDER}</div>')


class Toolbox:
    """One clip, one text, one encoder and one vocoder at a time.

    clip: (s,) at 24 kHz. Where the synthesizer is not trained, `speak` sends the clip's own mel through the vocoder.
    """

    def __init__(self, stages: Stages, clip: np.ndarray, text: str, seed: int = 0):
        self.stages, self.clip, self.text, self.seed = stages, clip, text, seed
        self.encoder, self.vocoder = next(iter(stages.encoders)), next(iter(stages.vocoders))

    def load(self, content: bytes, name: str) -> None:
        """Take another clip: the bytes of a sound file. Raises AudioError naming it; the old clip then stays."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"clip{Path(name).suffix}"
            path.write_bytes(content)
            try:
                self.clip = audio.load(path)
            except AudioError as error:
                raise AudioError(str(error).replace(str(path), name)) from error

    def voiceprint(self) -> Voiceprint:
        """The clip as the chosen encoder hears it."""
        return self.stages.encoders[self.encoder].voiceprint(self.clip)

    def picture(self) -> Figure:
        """The clip's mel, and its embedding as a square of numbers."""
        return _picture(self.clip, self.voiceprint())

    def speak(self) -> HTML:
        """Players of the clip and of what the chosen stages make. Raises AudioError and TextError on bad input."""
        voice = self.stages.voice(self.encoder, self.vocoder)
        if voice is None:
            mel = audio.mel(torch.from_numpy(np.ascontiguousarray(self.clip)))
            made = self.stages.vocoders[self.vocoder].decode(mel, self.seed)[0].float().cpu().numpy()
            note = three_networks.lacking("sv2tts-synthesizer", self.stages.profile)
            return listen.players({"clip": self.clip, f"its mel, {self.vocoder}": made}, {"clip": note})
        speech = voice.clone(self.clip, self.text, self.seed)
        found = speech.failures
        caption = f"{self.text} [skips {found.skips}, repeats {found.repeats}, runaways {found.runaways}]"
        name = f"{self.encoder}, {self.vocoder}"
        return listen.players({"clip": self.clip, name: speech.wave}, {name: caption})

    def widget(self) -> ipywidgets.Widget:
        """The same with buttons, for a notebook with a kernel behind it."""
        upload = ipywidgets.FileUpload(accept="audio/*", description="clip")
        text = ipywidgets.Text(self.text, description="text", continuous_update=False)
        first = ipywidgets.Dropdown(options=list(self.stages.encoders), description="encoder")
        third = ipywidgets.Dropdown(options=list(self.stages.vocoders), description="vocoder")
        go = ipywidgets.Button(description="speak", icon="play")
        out = ipywidgets.Output()

        def show(_: Any = None) -> None:
            out.clear_output(wait=True)
            with out:
                try:
                    for file in upload.value:
                        self.load(bytes(file["content"]), file["name"])
                    self.text, self.encoder, self.vocoder = text.value, first.value, third.value
                    display(_shown(self.picture()), self.speak())
                except (AudioError, TextError) as error:
                    print(error)

        go.on_click(show)
        row = ipywidgets.HBox([upload, first, third, go])
        return ipywidgets.VBox([row, text, out])


@look.styled
def _picture(clip: np.ndarray, voiceprint: Voiceprint) -> Figure:
    figure = Figure(figsize=(9.5, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    spectrogram(left, audio.mel(torch.from_numpy(np.ascontiguousarray(clip)))[0].numpy())
    left.set(xlabel="time (s)", ylabel="mel band", title="the clip")
    square = voiceprint.embedding.view(16, -1).numpy()
    image = right.imshow(square, cmap="cividis", aspect="auto", interpolation="nearest")
    right.set(title="its embedding", xticks=[], yticks=[], xlabel=f"{square.size} numbers")
    right.grid(visible=False)
    figure.colorbar(image, ax=right, label="value")
    return figure


def _shown(figure: Figure) -> Image:
    return look.keep(figure, "toolbox_live", tempfile.gettempdir())
