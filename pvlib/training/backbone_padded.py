"""Train the second, smaller backbone: text padded behind its characters, as F5-TTS v1 reads it.

Data, loss and schedule are those of the first backbone (`training.backbone`). No input tells this one which character
sounds where: attention has to find out, which is the difference that is studied. While it learns, two of its heads are
shown where to look (`backbone.Guide`).
"""

from __future__ import annotations

from functools import partial

from pvlib.training import backbone

NAME = backbone.PADDED
train = partial(backbone.train, name=NAME)
export = partial(backbone.export, name=NAME)
