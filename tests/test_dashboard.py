"""The dashboard as a browser and a script meet it: a real server on loopback, asked with the standard library."""

from __future__ import annotations

import base64
import contextlib
import errno
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from babble import babble
from torch import nn

from pvlib import audio, cli, hub, paths, persona
from pvlib.audio import AudioError
from pvlib.config import MINI, PAPER, TRAITS, Inference
from pvlib.dashboard import api, graph, studio
from pvlib.dashboard.studio import Studio
from pvlib.hub import WeightsError
from pvlib.voice import PersonaVoice

TEXT = "the quiet river."
QUICK = '{"steps": 4}'


class Answer:
    def __init__(self, status: int, headers: Any, body: bytes):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The one line of an error; nothing else may be told."""
        found = self.json
        assert self.status >= 400 and set(found) == {"error"} and "\n" not in found["error"], found
        return found["error"]


@pytest.fixture(scope="module")
def room():
    """The studio of all tests here, its models read once."""
    return Studio("mini")


@pytest.fixture(scope="module")
def site(room):
    with api.serving(api.make(room)) as address:
        yield address


DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever the machine's proxy is


def ask(address: str, body: bytes | None = None, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with DIRECT.open(urllib.request.Request(address, body, named), timeout=120) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read())


def post(address: str, value: Any) -> Answer:
    return ask(address, json.dumps(value).encode(), Content_Type="application/json")


def clone(
    site: str, file: bytes | None = None, name: str = "a.wav", accept: str = "*/*", **fields: str
) -> Answer:
    """POST /api/clone as a browser sends it, with few steps unless the fields say otherwise."""
    mark = uuid.uuid4().hex
    fields = {"settings": QUICK} | fields
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    if file is not None:
        head = f'--{mark}\r\nContent-Disposition: form-data; name="reference"; filename="{name}"\r\n\r\n'
        parts.append(head.encode() + file + b"\r\n")
    body = b"".join(parts) + f"--{mark}--\r\n".encode()
    return ask(site + "/api/clone", body, Content_Type=f"multipart/form-data; boundary={mark}", Accept=accept)


def wav(wave: np.ndarray, rate: int = audio.SAMPLE_RATE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


# The six endpoints


def test_health_tells_version_device_and_weights(site):
    found = ask(site + "/api/health")
    assert found.status == 200 and found.json["status"] == "ok" and found.json["profile"] == "mini"
    for name in hub.NAMES:
        assert found.json["weights"][name]["detail"] == hub.sha256(hub.weights_path(name, MINI))


def test_health_is_not_ok_where_a_network_is_missing(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(paths, "CHECKPOINTS", paths.ROOT / "nowhere")
    found = Studio("mini").health()
    assert found["status"] == "not usable" and not found["loaded"]
    assert "nowhere" in found["weights"]["backbone"]["detail"]


def test_a_clone_is_the_pipelines_own(site):
    """What comes back is what `PersonaVoice.clone` makes of the same clip, text, seed and steps."""
    found = clone(site, text=TEXT, seed="7")
    assert found.status == 200
    told = found.json
    voice = PersonaVoice.load("mini", steps=4)
    speech = voice.clone(studio.DEMO, TEXT, 7)
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(told["audio"])), dtype="float32")
    assert rate == told["sample_rate"] == audio.SAMPLE_RATE and told["seed"] == 7
    assert np.abs(wave - speech.wave).max() < 2e-3  # 16 bits, and threads of another count
    assert [c["text"] for c in told["chunks"]] == [c.text.strip() for c in speech.chunks]
    assert told["heard"] == voice.recognizer.transcribe([wave])[0]
    with torch.inference_mode():
        one, other = voice.speaker_encoder.embed([wave, voice.reference(studio.DEMO).wave]).float()
    assert told["secs"] == pytest.approx(float(one @ other), abs=0.01)
    assert told["recording"] == "the demo sample" and {"recognizer", "laag", "vocoder"} <= set(
        told["took_part"]
    )
    assert not {"chat", "persona", "oes", "film", "ceag"} & set(told["took_part"])
    mel = np.frombuffer(base64.b64decode(told["mel"]["levels"]), np.uint8)
    assert len(mel) == told["mel"]["bands"] * told["mel"]["frames"] == audio.N_MELS * (len(wave) // 256 + 1)


def test_a_script_gets_the_sound_alone(site):
    found = clone(site, wav(babble(1.0)), accept="audio/wav", text=TEXT, reference_text="a lamp.")
    assert found.status == 200 and found.headers.get_content_type() == "audio/wav"
    wave, rate = soundfile.read(io.BytesIO(found.body))
    assert rate == audio.SAMPLE_RATE and len(wave) > 0.2 * rate and np.abs(wave).max() > 0.01


def test_wishes_reach_the_adapters_and_the_answer_tells(site):
    plain = clone(site, text=TEXT)
    wished = clone(
        site, text=TEXT, gate="always", emotion="happy", chat="Hello!\nWhat a lovely party this is."
    )
    assert plain.status == wished.status == 200
    on = [{one["node"]: one["on"] for one in found.json["conditions"]} for found in (plain, wished)]
    assert not on[0]["film"] and on[1]["film"] and on[1]["oes"]
    words = {one["node"]: one["words"] for one in wished.json["conditions"]}["film"]
    assert "emotion" in words and "persona" in words and "style, which these adapters never learnt" in words
    assert wished.json["persona"]["extraversion"] > 0 and plain.json["persona"] is None
    assert wished.json["audio"] != plain.json["audio"]
    assert {"chat", "persona", "oes", "film"} <= set(wished.json["took_part"])


def test_a_wish_that_cannot_be_heard_is_told(site):
    found = clone(site, text=TEXT, emotion="sad")
    assert found.status == 200 and "gate is off" in " ".join(found.json["warnings"])
    words = {one["node"]: one["words"] for one in found.json["conditions"]}
    assert "gate is closed" in words["film"] and "gate is closed" in words["oes"]


def test_what_is_wrong_with_a_recording_that_can_be_used_is_told(site):
    found = clone(site, wav(babble(1.0)[::3], 8000), name="phone.wav", text=TEXT, reference_text="a lamp.")
    assert found.status == 200 and found.json["warnings"] == [
        "phone.wav: recorded at 8000 Hz, nothing above 4000 Hz"
    ]
    assert found.json["recording"] == "phone.wav" and "recognizer" not in found.json["took_part"]


def test_both_pictures_are_at_one_level(site):
    """A quiet recording is lifted before it is cloned, and the clone put back to its level: so is the picture."""
    loud, quiet = (
        clone(site, wav(level * babble(1.0)), text=TEXT, reference_text="a lamp.").json
        for level in (0.5, 0.05)
    )
    means = [
        [np.frombuffer(base64.b64decode(found[name]["levels"]), np.uint8).mean() for found in (loud, quiet)]
        for name in ("reference_mel", "mel")
    ]
    assert all(one - other > 10 for one, other in means)


def test_a_chat_is_read_as_the_extractor_reads_it(site):
    chat = ["Guess who is organising the party again!", "Bring everyone."]
    found = post(site + "/api/persona/analyze", {"chat": chat, "recalls": {"openness": -1.0}})
    extractor = persona.PersonaExtractor(hub.load_text_encoder())
    alone = extractor(chat, {"openness": -1.0})
    assert found.status == 200
    assert found.json["traits"] == pytest.approx(alone.traits, abs=1e-4)
    assert found.json["persona_emb"] == pytest.approx(alone.persona_emb.tolist(), abs=1e-5)
    assert len(found.json["text_style_emb"]) == 64 and "nobody" in found.json["note"]


def test_feedback_moves_the_traits_it_names(site):
    traits = dict.fromkeys(TRAITS, 0.1)
    found = post(site + "/api/persona/calibrate", {"traits": traits, "feedback": "a bit calmer, 更外向一点"})
    assert found.status == 200 and found.json["traits"] == pytest.approx(
        persona.calibrate(traits, "a bit calmer, 更外向一点")
    )
    assert found.json["traits"]["neuroticism"] < 0.1 < found.json["traits"]["extraversion"]


def test_the_demo_sample_is_the_bundled_clip(site):
    sound = ask(site + "/api/demo/sample", Accept="audio/wav")
    assert sound.body == studio.DEMO.read_bytes()
    told = ask(site + "/api/demo/sample").json
    assert told["seconds"] == pytest.approx(1.0, abs=0.05) and len(told["texts"]) == 4


def test_the_architecture_is_counted_on_the_networks(site, room):
    found = ask(site + "/api/architecture").json
    nodes = {node["id"]: node for node in found["nodes"]}
    voice = PersonaVoice.load("mini", use_adapters=True)
    for name in hub.NAMES:
        sizes = sum(p.numel() for p in getattr(voice, name).parameters())
        assert nodes[name]["parameters"] == sizes and nodes[name]["trained"] == "frozen"
    tempo = voice.adapters.tempo.weight.numel()
    parts = nodes["oes"]["parameters"] + nodes["film"]["parameters"]
    assert parts + tempo == sum(p.numel() for p in voice.adapters.parameters())
    assert {node["core"] for node in found["nodes"]} == {"", *"ABCDE"}
    for node in found["nodes"]:
        assert (paths.ROOT / node["source"]).is_file()
    for edge in found["edges"]:
        assert {edge["source"], edge["target"]} <= set(nodes) and edge["carries"]
    assert {row["name"] for row in found["parameters"]} == set(vars(Inference()))


def test_no_two_modules_of_the_picture_overlap():
    places = [(node.column, node.row) for node in graph.NODES]
    near = [
        (a, b)
        for i, a in enumerate(places)
        for b in places[:i]
        if abs(a[0] - b[0]) < 1 and abs(a[1] - b[1]) < 0.75
    ]
    assert not near


def test_what_is_switched_off_is_shown_as_off():
    bare = PersonaVoice.load("mini", use_laag=False, use_silero_vad=False, use_rms_normalize=False)
    on = {node["id"]: node["on"] for node in graph.architecture(bare)["nodes"]}
    assert not any(on[name] for name in ("laag", "frontend", "oes", "film", "ceag", "persona"))
    assert on["backbone"] and on["vocoder"]
    assert all(isinstance(network, nn.Module) for network in graph.networks_of(bare).values())


# Bad input


BAD_FILES = {
    "empty": (b"", "empty file"),
    "not audio": (b"<html>hello</html>" * 50, "cannot be decoded"),
    "silent": (wav(np.zeros(24_000, np.float32)), "silent"),
    "short": (wav(babble(0.1)), "lasts 0.10 s"),
    "NaN": (wav(np.full(24_000, np.nan, np.float32)), "NaN"),
    "an hour": (wav(np.zeros(3600 * 100, np.float32), 100), "60.0 minutes"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_recording_is_named_as_its_sender_calls_it(site, case):
    content, words = BAD_FILES[case]
    found = clone(site, content, name="../../etc/my voice.wav", text=TEXT)
    assert found.status == 422 and words in found.error
    assert (
        found.error.startswith("my voice.wav") and "upload" not in found.error and "/" not in found.error[:20]
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"text": ""}, "text"),
        ({"text": "..."}, "the text"),
        ({"text": "🙂"}, "the text"),
        ({"text": "a " * 10_001}, "the text"),
        ({"text": TEXT, "emotion": "bored"}, "no emotion 'bored'"),
        ({"text": TEXT, "emotion": "sad", "emotion_strength": "2"}, "strength"),
        ({"text": TEXT, "traits": "{"}, "traits: write a JSON object"),
        ({"text": TEXT, "traits": '{"wit": 1}'}, "no trait 'wit'"),
        ({"text": TEXT, "settings": '{"steps": "many"}'}, "steps"),
        ({"text": TEXT, "settings": '{"stepps": 4}'}, "no parameter 'stepps'"),
        ({"text": TEXT, "settings": "[" * 100_000}, "settings: write a JSON object"),
        ({"text": TEXT, "seed": "-1"}, "seed"),
        ({"text": TEXT, "seed": "one"}, "seed"),
        ({"text": TEXT, "sed": "1"}, "sed"),
        ({"text": TEXT, "gate": "open"}, "no film_gate 'open'"),
        ({"text": TEXT, "env_weight": "7"}, "env_weight"),
        ({"text": TEXT, "chat": "word " * 50_000}, "the chat has"),
        ({"text": TEXT, "emotion_strength": "0.5"}, "of which emotion"),
        ({"text": "so " * 700}, "the text has 2,100 characters"),
        ({"text": TEXT, "settings": '{"steps": 1000}'}, "steps = 1000 is more than"),
        ({"text": TEXT, "settings": '{"best_of_n": 64}'}, "best_of_n = 64 is more than"),
        ({"text": TEXT, "settings": '{"film_gate": "off"}', "gate": "always"}, "both give film_gate"),
        ({"text": TEXT, "settings": '{"profile_name": "paper"}'}, "no parameter 'profile_name'"),
        ({"text": TEXT, "settings": '{"name": 1}'}, "no parameter 'name'"),
        ({"text": TEXT, "settings": '{"self": 1, "device": "nowhere"}'}, "no parameter 'self', 'device'"),
        ({"text": TEXT, "settings": '{"rms_gain_range": 3}'}, "rms_gain_range = 3 is not like"),
        ({"text": TEXT, "settings": '{"rms_gain_range": ["a", "b"]}'}, "rms_gain_range"),
        ({"text": TEXT, "settings": '{"use_ceag": true, "ceag_layers": 3}'}, "ceag_layers = 3 is not like"),
        ({"text": TEXT, "settings": '{"\\ud800": 1}'}, "no parameter"),
    ],
)
def test_a_bad_field_gets_one_line_that_names_it(site, fields, words):
    found = clone(site, **fields)
    assert found.status == 422 and words in found.error


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("analyze", {"chat": 3}, "chat"),
        ("analyze", {}, "chat"),
        ("analyze", {"chat": "hi", "recalls": {"openness": 5}}, "outside -1 to 1"),
        ("calibrate", {"traits": {}, "feedback": "calmer"}, "no value for openness"),
        ("calibrate", {"traits": dict.fromkeys(TRAITS, 0), "feedback": "blue"}, "names no trait"),
    ],
)
def test_a_bad_persona_gets_one_line(site, path, value, words):
    found = post(f"{site}/api/persona/{path}", value)
    assert found.status == 422 and words in found.error


def test_what_is_no_json_is_refused(site):
    found = ask(site + "/api/persona/analyze", b"{oops", Content_Type="application/json")
    assert found.status == 422 and "no JSON" in found.error
    assert ask(site + "/api/clone").status == 405


def test_paths_lead_nowhere_else(site):
    for path in ("/nothing", "/../api.py", "/%2e%2e/api.py", "/..%2f..%2fconfig.py", "/api"):
        assert ask(site + path).status == 404


def test_nothing_that_is_sent_is_kept(site, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen, usual = [], audio.load

    def load(path):
        seen.extend(file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file())
        return usual(path)

    monkeypatch.setattr(audio, "load", load)
    large = wav(np.tile(babble(1.0), 20))  # more than the parser keeps in memory
    assert clone(site, large, text=TEXT).status in (200, 422)  # babble has no words
    assert clone(site, b"no sound", text=TEXT).status == 422
    assert len(seen) == 2 and all(path.name == "upload" for path in seen)
    assert not list(tmp_path.iterdir())


# Who may ask, and how much


def test_other_sites_and_other_names_are_refused(site):
    health, order = site + "/api/health", {"traits": dict.fromkeys(TRAITS, 0), "feedback": "calmer"}
    assert ask(health, Host="attacker.example").status == 400
    assert ask(health, Host="[").status == 400
    assert ask(health, Host="192.0.2.7").status == 400
    assert ask(health, Origin="http://attacker.example").status == 403
    assert ask(health, Sec_Fetch_Site="cross-site").status == 403
    body = json.dumps(order).encode()
    for foreign in ({"Origin": "http://attacker.example"}, {"Sec_Fetch_Site": "same-site"}):
        assert (
            ask(site + "/api/persona/calibrate", body, Content_Type="application/json", **foreign).status
            == 403
        )
    own = {"Origin": site, "Sec_Fetch_Site": "same-origin"}
    assert ask(health, **own).status == 200
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert ask(health, Host=host).status == 200
    named = ask(health, Origin="http://attacker.example").headers
    assert (
        "default-src 'self'" in named["Content-Security-Policy"]
        and "Access-Control-Allow-Origin" not in named
    )


def test_a_link_from_elsewhere_opens_the_page(site):
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert ask(site + "/", **link).status == 200
    assert ask(site + "/api/persona/calibrate", b"{}", Content_Type="application/json", **link).status == 403


def test_beyond_loopback_addresses_and_own_names_are_admitted_and_no_others(room):
    with api.serving(api.make(room, "0.0.0.0")) as address:
        health = address + "/api/health"
        for host in ("192.0.2.7:8000", "[2001:db8::1]", socket.gethostname(), "localhost"):
            assert ask(health, Host=host).status == 200
        assert ask(health, Host="attacker.example").status == 400
    assert api.is_loopback("127.0.0.2") and api.is_loopback("::1") and api.is_loopback("localhost")
    assert not api.is_loopback("0.0.0.0") and not api.is_loopback("example.org")


def test_a_request_that_is_too_large_is_refused_unread(site):
    host, _, port = site.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as line:
        head = (
            f"POST /api/clone HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {api.MAX_BYTES + 1}\r\n\r\n"
        )
        line.sendall(head.encode())
        assert b"413" in line.recv(4096).split(b"\r\n")[0]
    with socket.create_connection((host, int(port)), timeout=20) as line:
        line.sendall(
            f"POST /api/clone HTTP/1.1\r\nHost: {host}:{port}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        assert b"411" in line.recv(4096).split(b"\r\n")[0]
    with socket.create_connection((host, int(port)), timeout=20) as line:
        both = "Content-Length: 5\r\nTransfer-Encoding: chunked"
        line.sendall(f"POST /api/clone HTTP/1.1\r\nHost: {host}:{port}\r\n{both}\r\n\r\n".encode())
        assert line.recv(4096).split(b"\r\n")[0].split()[1] in (b"400", b"411")


def test_a_second_request_waits_and_then_gives_up(room, site, monkeypatch):
    monkeypatch.setattr(studio, "WAIT_SECONDS", 0.2)
    with room._alone():
        found = clone(site, text=TEXT)
        assert ask(site + "/api/health").json["busy"]
    assert found.status == 503 and "try again" in found.error and found.headers["Retry-After"]
    assert not ask(site + "/api/health").json["busy"]


def test_beyond_a_few_waiting_requests_are_refused_at_once(room, site, monkeypatch):
    monkeypatch.setattr(studio, "MOST_WAITING", 0)
    with room._alone():
        found = clone(site, text=TEXT)
    assert found.status == 503 and "waiting already" in found.error


def test_an_error_that_nobody_foresaw_tells_the_client_nothing(monkeypatch):
    def broken(self):
        raise RuntimeError("a secret")

    monkeypatch.setattr(Studio, "health", broken)
    with api.serving(api.make(Studio("mini"))) as address:
        found = ask(address + "/api/health")
    assert found.status == 500 and "secret" not in found.error
    assert "default-src 'self'" in found.headers["Content-Security-Policy"]


def test_pipelines_of_all_settings_share_their_networks(room):
    usual, other, adapted = room._voice({}), room._voice({"steps": 6}), room._voice({"use_adapters": True})
    for name in hub.NAMES:
        assert getattr(usual, name) is getattr(other, name) is getattr(adapted, name)
    assert other.inference.steps == 6 and adapted.adapters is room._voice({"use_adapters": True}).adapters
    assert room._voice({"padded_text": True}).backbone is not usual.backbone


def test_guidance_given_alone_is_read_as_everywhere(room):
    assert (
        room._voice({"cfg_strength": 0.5}).inference == PersonaVoice.load("mini", cfg_strength=0.5).inference
    )


def test_settings_that_bar_the_adapters_leave_a_graph():
    found = Studio("mini", use_ceag=True).architecture()
    on = {node["id"]: node["on"] for node in found["nodes"]}
    assert on["ceag"] and not on["film"]


# The page


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.inline = False

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.inline = self.inline or tag == "style" or (tag == "script" and "src" not in found)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[key] for key in ("src", "href") if found.get(key)]
        self.inline = self.inline or "style" in found or any(key.startswith("on") for key in found)


def test_the_page_needs_nothing_from_elsewhere(site):
    page = Page()
    page.feed(ask(site + "/").body.decode())
    assert not page.inline  # which its own Content-Security-Policy would forbid
    for link in page.links:
        assert "://" not in link and ask(f"{site}/{link}").status == 200, link
    for file in api.PAGE.iterdir():
        outside = re.findall(r"https?://[^\s\"')]+", file.read_text(encoding="utf-8"))
        assert set(outside) <= {"http://www.w3.org/2000/svg"}, file.name


def test_the_script_finds_what_it_looks_for():
    page = Page()
    page.feed((api.PAGE / "index.html").read_text(encoding="utf-8"))
    assert len(page.ids) == len(set(page.ids))
    script = (api.PAGE / "dashboard.js").read_text(encoding="utf-8")
    asked = set(re.findall(r'\bat\("([\w-]+)"\)', script))
    assert asked and asked <= set(page.ids)
    called = set(re.findall(r'"(api/[\w/]+)"', script))
    served = {route.path.lstrip("/") for route in api.make(Studio("mini")).routes}
    assert called and called <= served
    assert "innerHTML" not in script  # what the server says is text
    assert json.loads(re.search(r"TRAITS = (\[.*?\])", script)[1]) == list(TRAITS)
    assert float(re.search(r"MOST_BYTES = (\S+);", script)[1]) == api.MAX_BYTES
    page = (api.PAGE / "index.html").read_text(encoding="utf-8")
    assert f'maxlength="{studio.MOST_CHARS}"' in page and f'max="{studio.MOST["steps"]}"' in page


def test_the_form_of_the_page_is_that_of_the_endpoint():
    page = (api.PAGE / "index.html").read_text(encoding="utf-8")
    form = page.partition('<form id="clone">')[2].partition("</form>")[0]
    script = (api.PAGE / "dashboard.js").read_text(encoding="utf-8")
    sent = set(re.findall(r'\bname="(\w+)"', form)) | set(re.findall(r'form\.append\("(\w+)"', script))
    assert (
        {"text", "seed", "emotion", "reference", "chat", "settings"}
        <= sent
        <= set(api.CloneForm.model_fields)
    )


# The command


def test_serve_says_where_it_is_and_ends_at_an_interrupt():
    served = subprocess.Popen(
        [sys.executable, "-m", "pvlib", "serve", "--port", "0", "--set", "steps=4"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=paths.ROOT,
    )  # fmt: skip
    try:
        address = served.stdout.readline().split()[0]
        assert address.startswith("http://127.0.0.1:")
        steps = {row["name"]: row["value"] for row in ask(address + "/api/architecture").json["parameters"]}
        assert steps["steps"] == 4
    finally:
        served.send_signal(signal.SIGINT)
        _, told = served.communicate(timeout=60)
    assert served.returncode in (0, 130) and "Traceback" not in told


def test_a_port_that_is_taken_is_told_before_the_models_are_read(capsys, monkeypatch):
    monkeypatch.setattr(Studio, "load", lambda self: pytest.fail("models were read"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert cli.main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    told = capsys.readouterr().err
    assert "cannot listen on 127.0.0.1" in told and "--port" in told and told.count("\n") == 1


def test_serve_refuses_a_profile_without_models(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert cli.main(["serve", "--profile", PAPER.name]) == 2
    assert "pvlib models download" in capsys.readouterr().err


def test_an_interrupt_ends_a_clone_that_is_under_way():
    served = subprocess.Popen(
        [sys.executable, "-m", "pvlib", "serve", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=paths.ROOT,
    )  # fmt: skip
    try:
        address = served.stdout.readline().split()[0]
        long = {"text": "the river is long and " * 90, "settings": '{"steps": 128}'}
        threading.Thread(target=_asked_in_vain, args=(address, long), daemon=True).start()
        while not ask(address + "/api/health").json["busy"]:
            time.sleep(0.1)
    finally:
        served.send_signal(signal.SIGINT)
        begun = time.monotonic()
        served.communicate(timeout=60)
    assert served.returncode == 130 and time.monotonic() - begun < 20


def _asked_in_vain(address: str, fields: dict[str, str]) -> None:
    with contextlib.suppress(OSError):
        clone(address, **fields)


def test_an_address_is_what_a_browser_takes():
    with api.listen("0.0.0.0", 0) as listening:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", api.address(listening))
    try:
        listening = api.listen("::1", 0)
    except api.ServerError:
        pytest.skip("this machine has no IPv6")
    with listening:
        assert re.fullmatch(r"http://\[::1\]:\d+", api.address(listening))


def test_adapters_of_another_backbone_leave_a_graph(monkeypatch):
    def of_another(profile, backbone):
        raise WeightsError("adapters.safetensors belongs to another backbone")

    monkeypatch.setattr(hub, "load_adapters", of_another)
    nodes = {node["id"]: node for node in Studio("mini").architecture()["nodes"]}
    assert nodes["backbone"]["parameters"] > 0 and not nodes["film"]["on"]


def test_a_full_disk_is_the_servers_fault(site, room, monkeypatch):
    def full(*_, **__):
        raise AudioError("cannot write x.wav") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(room, "clone", full)
    answer = clone(site, text="hello")
    assert answer.status == 507 and "no space left" in answer.error
