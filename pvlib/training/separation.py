"""How OES learns which part of a speaker embedding is the room.

A linear reader of rooms finds nothing in the timbre exactly when the mean timbre is the same in every room (Belrose
et al., 2023, LEACE, theorem 3.1), and the timbre's means are a linear function of the embeddings' means:

    mean of timbre in room r - mean of all = (I - s B B^T) m_r,  m_r the mean embedding in room r less that of all

The basis begins where that can be read off: the span of the m_r, then the directions in which places of one room
differ most, and speakers least (nuisance attribute projection, Solomonoff et al., 2005): a room is heard in places
that nobody knows yet, so its mean there is not quite m_r. `env_scale` begins at the paper's 0.1. From there gradient
descent lessens what the timbre still holds of the m_r, which takes the scale to 1 and leaves a good basis where it is.
Readers of rooms and of speakers trained beside it left more of the room in the timbre, but in that trial `env_scale`
stopped short of 1 as well; nothing is claimed of them, and there are none.
"""

from __future__ import annotations

import torch
from scipy.linalg import eigh
from torch import Tensor, nn

from pvlib.oes import OES

STEPS = 200
BASIS_RATE, SCALE_RATE = 1e-4, 3e-2
RIDGE = 0.1  # of the speakers' covariance, a share of its mean variance


def room_means(embedding: Tensor, room: Tensor, speaker: Tensor) -> Tensor:
    """m_r: (rooms, d), the mean embedding in each room beside that of the same speakers elsewhere, centred.

    Speakers with one room tell nothing and are left out; where a room has no other speaker, the plain means are taken.
    """
    kept = embedding - means_of(embedding, speaker)[speaker]
    seen = torch.zeros(int(speaker.max()) + 1, int(room.max()) + 1, dtype=torch.bool)
    seen[speaker, room] = True
    several = seen.sum(1)[speaker] > 1
    if not all((several & (room == r)).any() for r in room.unique()):
        kept, several = embedding, torch.ones_like(several)
    means = torch.stack([kept[several & (room == r)].mean(0) for r in room.unique()])
    return means - means.mean(0)


def start(oes: OES, embedding: Tensor, room: Tensor, speaker: Tensor, place: Tensor) -> None:
    """Begin the basis at the directions of the rooms and of their places. See the module's text."""
    means = room_means(embedding, room, speaker)
    dim, columns = oes.env_basis.shape
    between = min(len(means) - 1, columns)
    first = torch.linalg.svd(means, full_matrices=False)[2][:between].T  # (d, between)
    rest = torch.linalg.svd(first, full_matrices=True)[0][:, between:]  # what is orthogonal to it
    own = means_of(embedding, speaker)
    there = means_of(embedding - own[speaker], place)[place] @ rest  # each clip as the mean of its place
    places = there.T @ there / len(there)
    speakers = torch.cov(((own[speaker.unique()] - embedding.mean(0)) @ rest).T, correction=0)
    speakers += RIDGE * speakers.trace() / len(speakers) * torch.eye(len(speakers))
    nuisance = torch.from_numpy(eigh(places.double().numpy(), speakers.double().numpy())[1]).float()
    with torch.no_grad():
        raw = torch.cat([first, rest @ nuisance[:, len(speakers) - (columns - between) :]], 1)
        oes.env_basis.copy_(torch.linalg.qr(raw).Q)


def means_of(values: Tensor, label: Tensor) -> Tensor:
    """Mean of each label's rows: (labels, d), zeros for a label without rows."""
    sums = torch.zeros(int(label.max()) + 1, values.shape[1]).index_add_(0, label, values)
    return sums / torch.bincount(label, minlength=len(sums)).clamp(min=1)[:, None]


def fit(
    oes: OES, embedding: Tensor, room: Tensor, speaker: Tensor, place: Tensor, steps: int = STEPS
) -> dict[str, float]:
    """Train OES on embeddings (n, d) with their labels (n,), from 0; seconds of work. Returns the last losses.

    place: its number, no two rooms having the same.

    "apart" is the share of the rooms' means that the timbre still holds, 0 when no linear reader can tell rooms.
    """
    start(oes, embedding, room, speaker, place)
    means = room_means(embedding, room, speaker)
    optimiser = torch.optim.Adam(
        [{"params": [oes.env_basis], "lr": BASIS_RATE}, {"params": [oes.env_scale], "lr": SCALE_RATE}]
    )
    fall = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: max(0.01, 1 - step / steps))
    losses: dict[str, Tensor] = {}
    for _ in range(steps):
        losses = {
            "apart": oes.split(means)[0].square().sum() / means.square().sum(),
            "orthogonality": oes.orthogonality_loss(),
        }
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
        fall.step()
    return {name: float(value.detach()) for name, value in losses.items()}


# What a linear reader finds: a probe that learns after the separation and has no part in it


def probe(x: Tensor, label: Tensor, classes: int, decay: float = 1e-3) -> tuple[Tensor, Tensor]:
    """A linear softmax reader of labels (n,) off x (n, d), classes weighted equally: weight (classes, d), bias."""
    mean, spread = x.mean(0), x.std(0).clamp(min=1e-4)
    given = ((x - mean) / spread).detach()
    weight, bias = (
        torch.zeros(classes, x.shape[1], requires_grad=True),
        torch.zeros(classes, requires_grad=True),
    )
    share = len(label) / classes / torch.bincount(label, minlength=classes).clamp(min=1)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = nn.functional.cross_entropy(nn.functional.linear(given, weight, bias), label, weight=share)
        value = value + decay * weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    scaled = (weight / spread).detach()
    return scaled, (bias - scaled @ mean).detach()


def accuracy(reader: tuple[Tensor, Tensor], x: Tensor, label: Tensor) -> float:
    """Mean over the classes present of the share that is read rightly: chance is 1 / classes, balanced or not."""
    right = nn.functional.linear(x, *reader).argmax(1) == label
    return float(torch.stack([right[label == k].float().mean() for k in label.unique()]).mean())
