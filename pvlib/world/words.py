"""Words and sentences of the mini world: a closed lexicon and a small grammar, both ours.

The grammar draws sentences of a wanted length, so that a manifest can follow the length strata of the paper's
200 utterances. Nothing here is random by itself: every function takes its generator.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

NOUNS = """
acorn actor album anchor angel apple apron arrow artist aunt author autumn baker balcony banana band bank barn
barrel basin basket beach beacon bean bear bed bell bench berry bicycle bird biscuit blanket boat bonnet book
border bottle bowl box branch bread breeze bridge brother bucket builder butter button cabin cable cactus camel
camera candle canyon captain caravan carpet carrot castle cat cavern cedar cellar chain chair chapel chapter
cherry chicken chimney cinema circle circus city clerk cliff clock cloud coach coast coat cobbler comet compass
concert cook copper corner cotton cousin cow cradle crane creek cricket crow crown crystal cup curtain cushion
dancer daughter deer desert diamond dinner doctor dog dolphin donkey door dragon drawer dream dress drummer duck
eagle earth editor elbow elephant ember engine evening falcon family farm farmer father feather fence ferry
fiddle field finger fire fisher flag flame flower flute forest fountain fox friend frog garden garlic gate
giant ginger glacier glove goat gold grandmother grape grass guest guitar hammer handle harbor hat hawk hen
hill hobby holiday honey horizon horn horse hospital hotel hour hunter inn insect iron island ivory jacket jar
jewel journal judge jungle kettle key king kitchen kite kitten ladder lake lamb lamp lantern lawyer leader
leaf lemon lesson letter library lily lion lizard machine magnet mango map maple marble market mason meadow
melon memory merchant message metal miller mirror model moment monkey moon morning mother motor mountain mouse
museum music needle neighbor nephew nest night number oak ocean office olive onion orange orchard orchestra otter
oven owl owner painter palace panther paper parade parcel park parrot partner pasture path peach pebble pencil
pepper piano picnic picture pigeon pillow pilot pine pirate planet plate player pocket poem poet pony potato
prince puddle puppet rabbit radio rain raven ribbon ring river road robin rocket roof room rooster rope rose
ruler sailor salad salmon sand saucer school sculptor secret servant shadow shark sheep shelf ship shirt shoe
shop shore signal silver singer sister sky smoke snail snow soldier song soup spider spoon spring squirrel
stable star station statue stone store storm story stranger street student sugar summer sun supper table tailor
tale teacher temple tent theater thunder ticket tiger timber toad tower town traveler tree trumpet tulip tunnel
turkey turtle uncle valley village violin visitor wagon waiter walnut water wave weaver wheel whistle widow
window winter wizard wolf woman wood worker writer yard zebra
""".split()

ADJECTIVES = """
amber ancient angry bitter black blue bold brave bright broad broken brown busy calm careful cheerful clean clear
clever cold common cool crooked curious damp dark deep distant dry dusty eager early eastern empty famous fancy
fast fearless final fine first flat foolish fragile free fresh friendly frozen full funny gentle golden good grand
gray great green happy hard heavy hidden high hollow honest humble hungry idle jolly kind large last late lazy
light little lively lonely long lost loud low lucky mellow merry mighty modest narrow noble noisy northern old
open orange pale patient plain pleasant polite poor pretty proud purple quick quiet rapid rare red rich ripe
rough round royal sacred sad safe secret serious sharp short shy silent silky silver simple sleepy slender slow
small smart smooth soft solid southern spare steady steep stern strange strong stubborn sudden sunny sweet swift
tall tame tender thick thin thirsty tidy tiny tired upper vast warm weary western wet white wide wild wise
wooden yellow young
""".split()

VERBS = """
admire adopt answer ask avoid balance believe borrow brush carry carve chase check climb collect color comfort
compare connect consider copy count cover cross deliver describe discover dislike draw drop enjoy enter examine
explain explore fasten fear fill finish fix fold follow forget gather greet guard guide help hide hunt imagine
improve invent invite join kick lend lift listen load lock love mark measure mend mention move name need notice
obey offer order own pack paint pass pick plant please polish pour praise prepare present preserve promise protect
pull push raise reach remember remove repair repeat rescue respect return reward roll scatter search serve settle
shake share shelter show sketch start steal stop study support surround taste thank touch trade train travel
trust turn use visit wait want warm wash watch weigh welcome whisper wonder
""".split()

IRREGULAR_PAST = {
    "forget": "forgot", "draw": "drew", "drop": "dropped", "fix": "fixed", "hide": "hid", "lend": "lent",
    "pack": "packed", "shake": "shook", "show": "showed", "steal": "stole", "stop": "stopped", "travel": "traveled",
    "carry": "carried", "copy": "copied", "study": "studied", "admire": "admired", "obey": "obeyed",
    "enjoy": "enjoyed", "own": "owned",
}  # fmt: skip

IRREGULAR_PLURAL = {
    "deer": "deer", "leaf": "leaves", "mouse": "mice", "sheep": "sheep", "shelf": "shelves", "woman": "women",
    "wolf": "wolves", "salmon": "salmon", "gold": "gold", "thunder": "thunder", "earth": "earth",
    "music": "music", "sand": "sand", "snow": "snow", "rain": "rain", "potato": "potatoes", "garlic": "garlic",
}  # fmt: skip

ADVERBS = """
again almost already always awkwardly badly boldly bravely briefly brightly calmly carefully cheerfully clearly
cleverly daily eagerly early easily finally firmly foolishly gently gladly happily heavily hardly honestly kindly
lately lazily lightly loudly merrily nearly neatly never nicely often once patiently politely poorly proudly
quickly quietly rarely really sadly safely secretly seldom sharply silently simply slowly smoothly softly
sometimes soon steadily suddenly sweetly swiftly tenderly together tomorrow twice usually warmly weekly wildly
wisely yesterday
""".split()

NAMES = """
adam albert alice amanda andrew anna arthur barbara benjamin carol charlie clara daniel david diana edgar edith
edward ellen emily emma eric felix flora frances frank george grace hannah harold harry helen henry ida jack jacob
jane jenny john joseph julia karen kevin laura leo linda lucas lucy margaret maria martin mary matthew michael
molly nancy nelson nora oliver oscar patrick paul peter philip rachel robert rosa ruth sally samuel sarah simon
sophie stella susan sylvia thomas victor violet walter wendy william
""".split()

DETERMINERS = "the a my your his her our their this that every another no one some any each".split()
PLURAL_DETERMINERS = """
the my your his her our their these those some many two three four five six seven eight nine ten few all
""".split()
PREPOSITIONS = (
    "above across after against along around at before behind below beneath beside between beyond by down during "
    "for from in inside into near of off on onto over past through to toward under until up upon with within without"
).split()
CONNECTIVES = "and but so or yet while because although when where since unless whenever if though".split()
OPENERS = (
    "today tonight yesterday perhaps meanwhile indeed however maybe now then later usually at last".split()
)
PRONOUNS = "i you he she we they it everyone somebody nobody".split()
MODALS = "can will could would should must might may did".split()
EXCLAMATIONS = "yes no hello goodbye please thanks sorry listen look welcome maybe never".split()

CAN_OF = "kind sort piece pair group cup bottle basket bag lot".split()


def _plural(noun: str) -> str:
    if noun in IRREGULAR_PLURAL:
        return IRREGULAR_PLURAL[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def _past(verb: str) -> str:
    if verb in IRREGULAR_PAST:
        return IRREGULAR_PAST[verb]
    if verb.endswith("e"):
        return verb + "d"
    return verb + "ed"


def _article(words: list[str]) -> list[str]:
    """Put `an` for `a` before a vowel letter."""
    return [
        "an" if w == "a" and i + 1 < len(words) and words[i + 1][0] in "aeio" else w
        for i, w in enumerate(words)
    ]


@lru_cache(maxsize=1)
def lexicon() -> tuple[str, ...]:
    """Every word form the grammar can say, sorted."""
    words = {"an", "of", "there", "was", "were", "is", "are", "not", "what", "who", "why", "how"}
    for group in (NOUNS, ADJECTIVES, VERBS, ADVERBS, NAMES, DETERMINERS, PLURAL_DETERMINERS, PREPOSITIONS):
        words |= set(group)
    for group in (CONNECTIVES, OPENERS, PRONOUNS, MODALS, EXCLAMATIONS, CAN_OF):
        words |= set(group)
    words |= {_plural(n) for n in NOUNS} | {_past(v) for v in VERBS}
    return tuple(sorted(words))


class Grammar:
    """Draws sentences from one generator."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def _one(self, words: list[str]) -> str:
        return words[int(self.rng.integers(len(words)))]

    def _chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def _noun_phrase(self, adjectives: int = 1) -> list[str]:
        if self._chance(0.18):
            return [self._one(NAMES)]
        plural = self._chance(0.35)
        words = [self._one(PLURAL_DETERMINERS if plural else DETERMINERS)]
        words += [self._one(ADJECTIVES) for _ in range(adjectives)]
        noun = self._one(NOUNS)
        return _article([*words, _plural(noun) if plural else noun])

    def _clause(self) -> list[str]:
        subject = [self._one(PRONOUNS)] if self._chance(0.2) else self._noun_phrase(int(self._chance(0.6)))
        words = list(subject)
        if self._chance(0.25):
            words.append(self._one(ADVERBS))
        verb = self._one(VERBS)
        words += [self._one(MODALS), verb] if self._chance(0.25) else [_past(verb)]
        words += self._noun_phrase(int(self._chance(0.5)))
        if self._chance(0.6):
            words += [self._one(PREPOSITIONS), *self._noun_phrase(int(self._chance(0.4)))]
        return words

    def _short(self, n: int) -> str:
        """A phrase of 1 to 4 words."""
        if n == 1:
            words = [self._one(EXCLAMATIONS + NAMES + NOUNS)]
        elif n == 2:
            words = self._one_of(
                lambda: [self._one(EXCLAMATIONS), self._one(NAMES)],
                lambda: [self._one(PLURAL_DETERMINERS), _plural(self._one(NOUNS))],
                lambda: [self._one(NAMES), _past(self._one(VERBS))],
            )
        elif n == 3:
            words = self._one_of(
                lambda: [self._one(VERBS), "the", self._one(NOUNS)],
                lambda: [self._one(NAMES), _past(self._one(VERBS)), self._one(NAMES)],
                lambda: _article([self._one(DETERMINERS), self._one(ADJECTIVES), self._one(NOUNS)]),
            )
        else:
            words = self._one_of(
                lambda: [self._one(NAMES), _past(self._one(VERBS)), "the", self._one(NOUNS)],
                lambda: [self._one(VERBS), "the", self._one(ADJECTIVES), self._one(NOUNS)],
                lambda: ["the", self._one(NOUNS), _past(self._one(VERBS)), self._one(ADVERBS)],
            )
        return " ".join(words) + self._one([".", ".", ".", "!", "?"])

    def _one_of(self, *makers) -> list[str]:
        return makers[int(self.rng.integers(len(makers)))]()

    def sentence(self, words: int) -> str:
        """A text of exactly `words` words, punctuated; several sentences when it is long."""
        if words <= 4:
            return self._short(words)
        while True:
            text = self._long(words)
            if len(text.split()) == words:
                return text

    def _long(self, words: int) -> str:
        parts: list[str] = []  # clauses with the mark that follows each
        left = words
        opener = self._chance(0.15)
        if opener:
            parts.append(self._one(OPENERS[:-2]) + ",")
            left -= 1
        in_sentence = 0
        while left > 0:
            clause = self._clause()
            if in_sentence and left > len(clause):
                clause = [self._one(CONNECTIVES), *clause]
            if left - len(clause) < 4 and left != len(clause):
                if left <= 4:
                    tail = self._short(left)[:-1].split()
                    clause = ["and", *tail[1:]] if len(tail) > 1 else [self._one(ADVERBS)]
                else:
                    return ""
            left -= len(clause)
            in_sentence += 1
            ends = left == 0 or (in_sentence >= 2 and self._chance(0.35)) or in_sentence >= 3
            mark = "," if not ends else self._one([".", ".", ".", ".", "?", "!"]) if left else "."
            in_sentence = 0 if ends else in_sentence
            parts.append(" ".join(clause) + mark)
        return " ".join(parts)

    def scrambled(self, words: int) -> str:
        """Words of the lexicon in no order that the grammar knows."""
        forms = lexicon()
        return " ".join(forms[int(self.rng.integers(len(forms)))] for _ in range(words)) + "."
