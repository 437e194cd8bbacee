"""What a person might answer: a line in the manner of a persona, by Qwen2.5-0.5B (experimental, as in the paper).

A plain language model continues a script: who speaks, their own messages, the line that is to be answered. Whether the
reply sounds like the person nobody has measured; it is words for `voice`, not a claim about anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from pvlib import models, persona
from pvlib.config import TRAITS

WORDS = {  # how a trait's low and its high pole are called in the script
    "openness": ("down-to-earth", "curious"),
    "conscientiousness": ("easy-going", "well-organised"),
    "extraversion": ("quiet", "outgoing"),
    "agreeableness": ("blunt", "warm-hearted"),
    "neuroticism": ("calm", "anxious"),
}
CLEAR = 0.25  # a trait nearer to 0 than this is not mentioned
MESSAGES = 20  # of the person, the latest, that the script holds
LONGEST = 2_000  # characters of the line to be answered, and of each message
MAX_TOKENS = 60  # of a reply
TEMPERATURE, TOP_P, TOP_K = 0.7, 0.9, 50


class DialogueError(ValueError):
    """A line that cannot be answered, or a reply that holds no word; the message says what to do."""


def description(traits: Mapping[str, float]) -> str:
    """A person in words: "an outgoing and warm-hearted person". Raises PersonaError on an unknown trait or value."""
    told = persona.check_recalls(traits)
    words = [WORDS[t][told[t] > 0] for t in TRAITS if abs(told.get(t, 0.0)) >= CLEAR]
    if not words:
        return "a person"
    joined = ", ".join(words[:-1]) + (" and " if words[:-1] else "") + words[-1]
    return f"{'an' if joined[0] in 'aeiou' else 'a'} {joined} person"


def script(line: str, traits: Mapping[str, float] | None = None, chat: Sequence[str] = ()) -> str:
    """What the model continues. Raises DialogueError on a line without text or too long, PersonaError."""
    line = " ".join(line.split())
    if not line:
        raise DialogueError("there is nothing to answer; give a line of text")
    if len(line) > LONGEST:
        raise DialogueError(f"the line to answer has {len(line):,} characters; at most {LONGEST:,} are read")
    messages = [" ".join(message.split())[:LONGEST] for message in persona.check_chat(chat)]
    own = [f"Sam: {message}" for message in messages if message][-MESSAGES:]
    return "\n".join([f"A chat with Sam, {description(traits or {})}.", "", *own, f"Friend: {line}", "Sam:"])


class Dialogue:
    """The language model with its tokenizer."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        """folder: files of the official layout. Raises WeightsError where they cannot be read."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.device = torch.device(device)
        with models.reading(folder, "a language model"):
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            network = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        self.network = network.eval().requires_grad_(False).to(self.device)

    def reply(
        self,
        line: str,
        *,
        traits: Mapping[str, float] | None = None,
        chat: Sequence[str] = (),
        seed: int = 0,
    ) -> str:
        """One line in answer to another, cut after `MAX_TOKENS`. The same seed repeats on the same kind of machine.

        traits: some of the five, each -1..1; chat: messages of the person, in order.
        Raises DialogueError, also where the model says nothing, and PersonaError.
        """
        given = self.tokenizer(script(line, traits, chat), return_tensors="pt").to(self.device)
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            made = self.network.generate(
                **given,
                do_sample=True,
                temperature=TEMPERATURE,
                top_p=TOP_P,
                top_k=TOP_K,
                max_new_tokens=MAX_TOKENS,
                pad_token_id=self.tokenizer.eos_token_id,
            )
        new = self.tokenizer.decode(made[0, given["input_ids"].shape[1] :], skip_special_tokens=True)
        said = new.partition("\n")[0].strip()  # what comes behind is the next line of the script
        if not any(map(str.isalnum, said)):
            raise DialogueError(f"the model has no answer to {line[:40]!r}; try another seed")
        return said


def load(device: torch.device | str = "cpu") -> Dialogue:
    """Qwen2.5-0.5B from the cache. Raises WeightsError where it is missing or damaged."""
    model = next(model for model in models.MODELS if model.name == "Qwen2.5-0.5B")
    return Dialogue(models.whole(model).parent, device)
