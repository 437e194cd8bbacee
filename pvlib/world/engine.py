"""The base engine: espeak-ng, called through its C library, with the true time of every word and phone.

Only rebuilding the world needs it (`pip install personavoice-companion[world]`). The library holds global state,
so one process speaks with one engine, and only the first thing a process says is sure to sound the same every time.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_RETRIEVAL, _PHONEME_EVENTS = 2, 1
_END, _WORD, _PHONEME = 0, 1, 7
_RATE = 1


class EngineError(RuntimeError):
    """The base engine is missing or refuses a voice."""


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class Spoken:
    """What the engine said.

    wave: (samples,) float32 at `rate`; words: (word, start, end) in seconds; phones: (name, start) in seconds,
    "" for a pause.
    """

    wave: np.ndarray
    rate: int
    words: tuple[tuple[str, float, float], ...]
    phones: tuple[tuple[str, float], ...]


@lru_cache(maxsize=1)
def library() -> tuple[ctypes.CDLL, bytes]:
    """The C library, loaded but not started, and its data folder. Raises EngineError when it is not installed."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise EngineError(
            "rebuilding the mini world needs espeak-ng: pip install 'personavoice-companion[world]'"
        ) from error
    return ctypes.CDLL(espeakng_loader.get_library_path()), espeakng_loader.get_data_path().encode()


class Engine:
    """espeak-ng in this process."""

    def __init__(self) -> None:
        self._library, data = library()
        self.rate = self._library.espeak_Initialize(_RETRIEVAL, 0, data, _PHONEME_EVENTS)
        if self.rate <= 0:
            raise EngineError("espeak-ng does not start; reinstall espeakng-loader")
        self._library.espeak_ng_SetRandSeed(1)  # its breath noise else differs from start to start
        self._pieces: list[np.ndarray] = []
        self._events: list[tuple[int, int, int, bytes]] = []
        self._callback = _Callback(self._collect)
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, wave, count, events) -> int:
        if wave and count > 0:
            self._pieces.append(np.ctypeslib.as_array(wave, (count,)).copy())
        i = 0
        while events[i].type != _END:
            event = events[i]
            name = event.id.string if event.type == _PHONEME else b""
            self._events.append((event.type, event.text_position, event.audio_position, name))
            i += 1
        return 0

    def say(self, text: str, voice: str, words_per_minute: int = 170) -> Spoken:
        """Speak ASCII text with an espeak-ng voice such as "en-us+f3".

        Raises EngineError on an unknown voice.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise EngineError(f"espeak-ng has no voice {voice!r}")
        self._library.espeak_SetParameter(_RATE, int(words_per_minute), 0)
        self._pieces, self._events = [], []
        data = text.encode("ascii")
        self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, 1, None, None)
        self._library.espeak_Synchronize()
        wave = np.concatenate(self._pieces).astype(np.float32) / 32768
        phones = [
            ("" if name.startswith(b"_") else name.decode("ascii", "replace"), position / 1000)
            for kind, _, position, name in self._events
            if kind == _PHONEME
        ]
        return Spoken(wave, self.rate, self._word_times(text, phones, len(wave) / self.rate), tuple(phones))

    def _word_times(self, text: str, phones: list, total: float) -> tuple[tuple[str, float, float], ...]:
        """Starts come from word events, mapped by text position; a word ends at the next word or pause."""
        starts: dict[int, float] = {}
        for kind, position, milliseconds, _ in self._events:
            if kind == _WORD:
                index = len(text[: position - 1].split())  # positions count from 1
                starts.setdefault(index, milliseconds / 1000)
        words = text.split()
        times = [starts.get(i) for i in range(len(words))]
        later = total
        for i in reversed(range(len(words))):  # a word spoken together with the next one starts with it
            times[i] = later if times[i] is None else times[i]
            later = times[i]
        pauses = [start for name, start in phones if not name] + [total]
        ends = [min([p for p in pauses if p > t] + [total]) for t in times]
        ends = [min(end, nxt) for end, nxt in zip(ends, [*times[1:], total], strict=True)]
        bare = [word.strip(",.?!") for word in words]
        return tuple((w, round(t, 4), round(max(e, t), 4)) for w, t, e in zip(bare, times, ends, strict=True))


@lru_cache(maxsize=1)
def shared() -> Engine:
    """This process's engine."""
    return Engine()
