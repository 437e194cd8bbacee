"""How quickly the backbone learns on this machine, where a step's time goes, and what each means of speed is worth.

Measured on made-up batches of the usual size, so that no corpus is needed; what a step costs does not depend on what is
said in it. Every variant takes the same batches in turn, so that a machine that slows down slows them all.
"""

from __future__ import annotations

import gc
import statistics
import time
import timeit
from collections.abc import Callable
from dataclasses import asdict, dataclass

import pandas as pd
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from tqdm.auto import tqdm

from pvlib import backbone, hub, paths
from pvlib.audio import N_MELS
from pvlib.config import MINI, Profile
from pvlib.study import provenance
from pvlib.study.comparisons import many
from pvlib.study.kept import kept
from pvlib.systems.fingerprint import digest, fingerprint
from pvlib.training import backbone as trainer
from pvlib.training import machine
from pvlib.training.common import Ema

TARGET = 11_000  # frames a second, on two cores
USUAL = "as trained"
SHORTEST, LONGEST, LETTERS_PER_FRAME = 120, 560, 0.15  # of the made-up rows
PARTS = ("flow", "hearing", "backward", "optimisers", "average")  # as `training.backbone.learn` names them
KINDS = {  # kernels of the profiler by what they do; what is not listed is "other"
    "matrix products": ("aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm", "mkldnn::_linear_pointwise"),
    "convolutions": ("aten::mkldnn_convolution", "aten::convolution_backward", "aten::_conv_depthwise2d"),
    "attention": ("_Attend", "_AttendBackward", "aten::_softmax"),
    "copies and casts": ("aten::copy_", "aten::clone", "aten::cat", "aten::fill_", "aten::index"),
    "normalisation": ("aten::native_layer_norm", "aten::native_layer_norm_backward"),
}


@dataclass(frozen=True)
class Variant:
    """The usual step with one means of speed, or of quality, taken away."""

    name: str
    mixed: bool = True  # bf16 where the processor multiplies it
    rows: bool = True  # attention row by row
    hearing: bool = True  # representation alignment
    muon: bool = True  # else AdamW for all


VARIANTS = (
    Variant(USUAL),
    Variant("all in fp32", mixed=False),
    Variant("the official attention", rows=False),
    Variant("without representation alignment", hearing=False),
    Variant("AdamW alone", muon=False),
)


def batch(model: backbone.Backbone, frames: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """A made-up batch of like-long rows with about so many mel frames in all, in the form of `Rows.batch`."""
    generator = torch.Generator().manual_seed(seed)
    longest = int(torch.randint(SHORTEST, LONGEST + 1, (), generator=generator))
    count = max(1, frames // longest)
    lengths = longest - torch.randint(0, max(1, longest // 10), (count,), generator=generator)
    lengths[0] = longest
    mel = torch.randn(count, longest, N_MELS, generator=generator)
    nt = max(2, round(LETTERS_PER_FRAME * longest))
    text = torch.randint(1, len(model.vocabulary), (count, nt), generator=generator)
    if model.settings.text_conditioning != "durations":
        return mel, lengths, text, None
    tokens = model.cfm.tokens(lengths)
    return mel, lengths, text, model.transformer.text_embed.align(text, tokens, int(tokens.max()))


def stepper(
    variant: Variant, settings: Profile
) -> tuple[backbone.Backbone, Callable[[tuple[Tensor, ...]], dict[str, Tensor]]]:
    """An untrained backbone and a function that trains it on a batch, as `training.backbone` does."""
    torch.manual_seed(trainer.SEED)
    model = backbone.build(settings.backbone)
    hearing = trainer.Hearing(model, hub.load_recognizer(settings)) if variant.hearing else None
    beside = hearing or nn.Identity()
    if variant.muon:
        optimisers = trainer.optimisers(model, beside)
    else:
        every = (*model.parameters(), *beside.parameters())
        optimisers = (torch.optim.AdamW(every, lr=trainer.PEAK_RATE, fused=True),)
    if variant.rows:
        trainer.quicken(model.transformer.transformer_blocks, model.device)
    model.train()
    ema = Ema(model)
    return model, lambda given: trainer.learn(
        model, hearing, optimisers, ema, given, 1.0, mixed=variant.mixed
    )


def compare(
    settings: Profile = MINI,
    *,
    steps: int = 3,
    frames: int = trainer.FRAMES_PER_STEP,
    variants: tuple[Variant, ...] = VARIANTS,
    progress: bool = True,
) -> pd.DataFrame:
    """Frames a second of each variant, a line each, the usual one first.

    Columns: step (seconds, median of `steps` on different batches), frames_per_second, cost (seconds of a step beside
    the usual one's). Raises WeightsError without a trained recogniser.
    """
    machine.prepare()
    made = {variant: stepper(variant, settings) for variant in variants}
    times: dict[Variant, list[tuple[float, int]]] = {variant: [] for variant in variants}
    with tqdm(total=len(variants) * (steps + 1), desc="training steps", disable=not progress) as bar:
        for number in range(steps + 1):  # the first warms up
            for variant, (model, learn) in made.items():
                given = batch(model, frames, number)
                begun = time.perf_counter()
                found = learn(given)
                if number:
                    times[variant].append((time.perf_counter() - begun, int(found["frames"])))
                bar.update()
    lines = []
    for variant in variants:
        median = statistics.median(seconds for seconds, _ in times[variant])
        rate = sum(n for _, n in times[variant]) / sum(seconds for seconds, _ in times[variant])
        lines.append((variant.name, median, rate))
    found = pd.DataFrame(lines, columns=["variant", "step", "frames_per_second"]).set_index("variant")
    made.clear()
    gc.collect()
    return found.assign(cost=found["step"] / found["step"].iloc[0])


def profiled(
    settings: Profile = MINI, *, frames: int = trainer.FRAMES_PER_STEP, steps: int = 2
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Where the time of a usual step goes: shares by part of the step, and by kind of kernel, the dearest first."""
    machine.prepare()
    model, learn = stepper(VARIANTS[0], settings)
    batches = [batch(model, frames, number) for number in range(steps + 1)]
    learn(batches[0])
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as found:
        for given in batches[1:]:
            learn(given)
    events = {event.key: event for event in found.key_averages()}
    whole = sum(events[part].cpu_time_total for part in PARTS)
    parts = {part: events[part].cpu_time_total / whole for part in PARTS}
    kinds = dict.fromkeys([*KINDS, "other"], 0.0)
    for key, event in events.items():
        kind = next((kind for kind, keys in KINDS.items() if key in keys), "other")
        kinds[kind] += event.self_cpu_time_total
    total = sum(kinds.values())
    return (
        pd.DataFrame({"share": parts}),
        pd.DataFrame({"share": {kind: own / total for kind, own in kinds.items()}}).sort_values(
            "share", ascending=False
        ),
    )


def ceiling(
    settings: Profile = MINI, *, frames: int = trainer.FRAMES_PER_STEP, repeats: int = 3
) -> tuple[float, torch.dtype]:
    """Frames a second if a step were nothing but the products of its DiT blocks' linear layers, and in which precision.

    Each layer is one product forward and two backward; the best of `repeats` counts.
    """
    machine.prepare()
    precision = hub.precision("cpu")
    model = backbone.build(settings.backbone)
    tokens = frames // settings.backbone.stack
    seconds = 0.0
    for block in model.transformer.transformer_blocks:
        for name, layer in block.named_modules():
            # the layer in attn_norm reads the time, once a row
            if isinstance(layer, nn.Linear) and "attn_norm" not in name:
                x, weight = torch.randn(tokens, layer.in_features), layer.weight.detach()
                y = torch.randn(tokens, layer.out_features)
                x, weight, y = (t.to(precision) for t in (x, weight, y))
                for a, b in ((x, weight.T), (y, weight), (y.T, x)):
                    seconds += min(timeit.repeat(lambda a=a, b=b: a @ b, number=1, repeat=repeats))
    return frames / seconds, precision


@dataclass(frozen=True)
class Measured:
    """What `compare`, `profiled` and `ceiling` found on a machine with so many threads."""

    threads: int
    compared: pd.DataFrame
    parts: pd.DataFrame
    kernels: pd.DataFrame
    ceiling: float
    precision: str


def measured(settings: Profile = MINI, *, steps: int = 3, progress: bool = True) -> Measured:
    """All of it, kept in `build/results/<profile>/training-speed.json`.

    What was measured on this machine with the same sources is not measured again, so that a notebook that runs beside
    another one shows the numbers of a quiet machine. Raises as `compare`.
    """
    path = paths.WORKING_ROWS / settings.name / "training-speed.json"
    sources = fingerprint(settings, modules=[trainer.__name__, __name__], weights=["recognizer"])
    key = digest([provenance.machine(), sources, asdict(settings.backbone), steps])

    def measure() -> dict[str, object]:
        compared = compare(settings, steps=steps, progress=progress)
        parts, kernels = profiled(settings)
        top, precision = ceiling(settings)
        found = {"threads": torch.get_num_threads(), "ceiling": top}
        found |= {"precision": str(precision).removeprefix("torch.")}
        tables = {"compared": compared, "parts": parts, "kernels": kernels}
        return found | {name: table.to_dict(orient="index") for name, table in tables.items()}

    content = kept(path, key, measure)
    tables = {
        name: pd.DataFrame.from_dict(content[name], orient="index")
        for name in ("compared", "parts", "kernels")
    }
    return Measured(content["threads"], **tables, ceiling=content["ceiling"], precision=content["precision"])


def told(found: Measured) -> str:
    """In words: frames a second against the target and the `ceiling`, the dearest part, what each means is worth."""
    compared, parts, threads = found.compared, found.parts, found.threads
    usual = compared.loc[USUAL]
    worth = ", ".join(
        f"{name} {line['cost']:.2f} times the step" for name, line in compared.drop(index=USUAL).iterrows()
    )
    met = "met" if usual["frames_per_second"] >= TARGET else "missed"
    return (
        f"The backbone learns from {usual['frames_per_second']:,.0f} mel frames a second with {threads} "
        f"{many(threads, 'thread')} (target on two cores: {TARGET:,}, **{met}**). The products of its linear layers "
        f"alone, in {found.precision}, would allow {found.ceiling:,.0f} on this processor. Of a step, "
        f"`{parts['share'].idxmax()}` takes {parts['share'].max():.0%}. Otherwise: {worth}."
    )
