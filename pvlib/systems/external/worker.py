"""The other end of the line: runs in the environment of XTTS or CosyVoice, and imports nothing of pvlib.

    python -I worker.py NAME OPTIONS

OPTIONS is a JSON object. With `facts` it prints the versions of the packages that count, as JSON, and ends. Otherwise
it loads the system, answers {"ready": true, "device": ...}, then answers each line of its input with a line:

    {"text", "reference", "reference_text", "seed", "wave"}    paths of wave files to read and to write
    {"wave", "sample_rate", "seconds"}                         or {"error", "broken"}: the words could not be said

`broken` says that the GPU is of no more use to this process. It ends with its input, even in the middle of a
sentence, so that it never outlives the process that started it. Written for Python 3.10, which CosyVoice asks for.
"""

from __future__ import annotations

import inspect
import json
import os
import queue
import random
import sys
import threading
import time
from importlib import metadata

LANGUAGE = "en"
PROMPT_RATE = 16_000  # of the tensor that older checkouts of CosyVoice take for a prompt


class XTTS:
    """XTTS v2 through the package coqui-tts. Sentences are split by it; all settings are its own."""

    packages = ("coqui-tts", "torch", "torchaudio", "transformers", "numpy")

    def __init__(self, model):
        from TTS.api import TTS

        self.tts = TTS(model, progress_bar=False).to(device())

    def speak(self, text, reference, reference_text):
        wave = self.tts.tts(text=text, speaker_wav=[reference], language=LANGUAGE)
        return wave, self.tts.synthesizer.output_sample_rate


class CosyVoice:
    """CosyVoice or CosyVoice 2 from a checkout of its repository, zero-shot: clip and transcript are the prompt."""

    packages = ("torch", "torchaudio", "transformers", "onnxruntime", "onnxruntime-gpu", "wetext", "numpy")

    def __init__(self, model, home):
        sys.path[:0] = [home, os.path.join(home, "third_party", "Matcha-TTS")]
        from cosyvoice.cli import cosyvoice
        from cosyvoice.utils.file_utils import load_wav

        second = os.path.isfile(os.path.join(model, "cosyvoice2.yaml"))
        self.model = (cosyvoice.CosyVoice2 if second else cosyvoice.CosyVoice)(model)
        # newer checkouts take the path of the prompt, older ones its samples
        by_path = "prompt_wav" in inspect.signature(self.model.inference_zero_shot).parameters
        self.prompt = str if by_path else lambda path: load_wav(path, PROMPT_RATE)

    def speak(self, text, reference, reference_text):
        import torch

        said = self.model.inference_zero_shot(text, reference_text, self.prompt(reference), stream=False)
        parts = [part["tts_speech"].detach().cpu() for part in said]  # a part per sentence, each (1, s)
        if not parts:
            raise ValueError("nothing was said")
        return torch.cat(parts, dim=1), self.model.sample_rate


SYSTEMS = {"xtts": XTTS, "cosyvoice": CosyVoice}


def main():
    kind, options = SYSTEMS[sys.argv[1]], json.loads(sys.argv[2])
    if options.pop("facts", False):
        print(json.dumps(facts(kind)))
        return
    requests, answer = line()
    system = kind(**options)
    answer({"ready": True, "device": device()})
    while True:
        answer(serve(system, json.loads(requests.get())))


def serve(system, request):
    """The answer to one request. What goes wrong beyond the speaking itself, such as a full disk, ends the process."""
    import numpy
    import soundfile

    path, seed = request.pop("wave"), request.pop("seed")
    seed_all(seed)
    start = time.perf_counter()
    try:
        wave, rate = system.speak(**request)
        wave = numpy.asarray(wave, dtype=numpy.float32).ravel()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "broken": is_broken()}
    seconds = time.perf_counter() - start
    soundfile.write(path, wave, rate, format="WAV", subtype="FLOAT")
    return {"wave": path, "sample_rate": rate, "seconds": seconds}


def facts(kind):
    """Versions of Python and of the packages that count; those that are not installed are left out."""
    found = {}
    for name in kind.packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"python": ".".join(map(str, sys.version_info[:3])), "packages": found}


def line():
    """A queue of the lines that come in, and a function that answers.

    What the packages print goes to the standard error, and what they ask of the keyboard finds no answer: neither may
    come between.
    """
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    into = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    requests = queue.Queue()

    def listen():
        for request in into:
            requests.put(request)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()

    def answer(content):
        out.write(json.dumps(content) + "\n")
        out.flush()

    return requests, answer


def device():
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def seed_all(seed):
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def is_broken():
    """Whether the GPU answers no more: after some errors of CUDA every later call of the process fails."""
    import torch

    if device() == "cuda":
        try:
            torch.cuda.synchronize()
        except Exception:
            return True
    return False


if __name__ == "__main__":
    main()
