"""What training the adapters needs of a GPU's memory, computed before it runs, beside the paper's 8 GB.

What lasts (weights, gradients, moments, average) is counted exactly. What a step keeps for its backward pass is counted
by autograd itself, on the meta device, where tensors have sizes and no content: the blocks are the official ones, in
fp32 and with attention as a plain softmax, in rows as long as sentences may be. bf16 autocast and fused attention keep
less, so the sum is an upper bound. CUDA's own context, some hundred megabytes, and the allocator's gaps come on top.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import torch
from torch import Tensor, nn

from pvlib import audio, backbone, hub
from pvlib.adapters import Adapters, Conditions
from pvlib.config import EMOTIONS, Profile
from pvlib.study import claims, ledger
from pvlib.training.adapters import FRAMES_PER_STEP, recipe
from pvlib.training.libritts import LONGEST_SECONDS

FP32, BF16 = 4, 2  # bytes of a number
MOMENTS = 2  # that Adam keeps of each parameter


def table(
    profile: Profile, rows: int | None = None, frames: int | None = None, larger: int = 1
) -> pd.DataFrame:
    """A line per part with its bytes; the last is their sum. Columns: part, bytes.

    rows, frames: of a step, by default as many sentences of the greatest length as a step takes that is so many times
    `larger` than usual.
    """
    frames = frames or int(LONGEST_SECONDS * audio.SAMPLE_RATE) // audio.HOP_LENGTH + 1 + audio.CLIP_FRAMES
    rows = rows or max(1, larger * FRAMES_PER_STEP // frames)
    model, module = networks(profile)
    frozen = _bytes([*model.parameters(), *model.buffers()])
    own, average = _bytes(module.parameters()), _bytes(module.state_dict().values())
    trained = _bytes(p for p in module.parameters() if p.requires_grad)
    block = sum(p.numel() for p in module.blocks[0].parameters())
    tokens = -(-frames // model.cfm.stack)
    everything = kept(model, module, rows, tokens, recompute=False)
    again = recipe(profile).recompute
    between = kept(model, module, rows, tokens, recompute=True) if again else everything
    one = (everything - between) // len(module.blocks) if again else everything
    lines = {
        "backbone, frozen, fp32": frozen,
        "adapters, fp32": own,
        "their moving average, fp32": average,
        "gradients, fp32": trained,
        "Adam's moments, fp32": MOMENTS * trained,
        "weights in bf16, while they multiply": BF16 * block * (1 if again else len(module.blocks)),
        f"kept for the backward pass, {rows} x {frames} frames": between,
        "made again of one block": one if again else 0,
        "gradients of those, at most as much": one,
    }
    found = pd.DataFrame(lines.items(), columns=["part", "bytes"])
    return pd.concat([found, pd.DataFrame({"part": ["in all, at most"], "bytes": [found["bytes"].sum()]})])


def told(profile: Profile, rows: int | None = None, frames: int | None = None, larger: int = 1) -> str:
    """The `table` for people, in GB, and the paper's claim beside it."""
    found = table(profile, rows, frames, larger)
    lines = [f"{line.part:<48} {line.bytes / 1e9:6.3f} GB" for line in found.itertuples()]
    [vram] = [claim for claim in ledger.load() if claim.id == "vram"]
    limit = claims.number(vram.value, {})
    fits = "fits" if found["bytes"].iat[-1] <= limit.value else "does not fit"
    return "\n".join([*lines, f'the paper: "{vram.quote}"; what is counted here {fits}'])


def networks(profile: Profile) -> tuple[backbone.Backbone, Adapters]:
    """The profile's backbone, frozen, and its adapters, both without content."""
    with torch.device("meta"):
        vocabulary = None if profile.backbone.vocabulary else hub.packaged_vocabulary()
        model = backbone.build(profile.backbone, vocabulary).requires_grad_(False)
        module = Adapters(profile.adapters, model.transformer)
    module.oes.requires_grad_(False)
    return model, module


def kept(model: backbone.Backbone, module: Adapters, rows: int, tokens: int, *, recompute: bool) -> int:
    """Bytes of what autograd keeps of a step's forward pass through all blocks, weights apart; `networks` in fp32.

    Rotary embedding knows no meta device; the sines and cosines it keeps are added by their formula.
    """
    dit, settings = model.transformer, module.settings
    sizes = (settings.speaker_dim, settings.persona_dim, settings.style_dim, len(EMOTIONS))
    given = Conditions(*(torch.empty(rows, size, device="meta") for size in sizes))
    x = torch.empty(rows, tokens, dit.dim, device="meta")
    t = torch.empty(rows, dit.dim, device="meta")
    mask = torch.empty(rows, tokens, dtype=torch.bool, device="meta")
    target = torch.empty(rows, tokens, model.cfm.num_channels, device="meta")
    weights = [p.untyped_storage() for p in (*model.parameters(), *module.parameters())]
    lasting = {id(storage) for storage in weights}
    held: dict[int, torch.UntypedStorage] = {}  # alive, like `weights`, so that an id is of one storage

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in lasting:
            held[id(storage)] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        condition = module.condition(given)
        with module.modulating(dit, condition, recompute=recompute):
            for block in dit.transformer_blocks:
                x = block(x, t, mask=mask, rope=None)
        loss = (dit.proj_out(dit.norm_out(x, t)) - target).square().mean()
    turns = 0 if recompute else len(module.blocks) * 4 * tokens * model.settings.dim_head * FP32
    del loss
    return sum(storage.nbytes() for storage in held.values()) + turns


def _bytes(tensors: Iterable[Tensor | nn.Parameter]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
