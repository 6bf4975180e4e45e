"""The vocabulary of the world: the words of captions, and the words of the language models' own text.

Image captions use the plain words (`red`, `circle`, `to the left of`). The synonyms and inverted phrasings
below never accompany a picture. They occur in the text that language models are pretrained on, so that only
the language model can bring the knowledge that crimson is red to a bridge.
"""

NUMBERS = {2: "two", 3: "three", 4: "four"}
PLURALS = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "cross": "crosses",
    "ring": "rings",
    "star": "stars",
}

SYNONYMS: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "scarlet"),
    "orange": ("tangerine", "amber"),
    "yellow": ("lemon", "golden"),
    "green": ("emerald", "jade"),
    "cyan": ("turquoise", "aqua"),
    "blue": ("sapphire", "cobalt"),
    "purple": ("violet", "plum"),
    "black": ("ebony", "jet-black"),
    "circle": ("disc", "dot"),
    "square": ("box", "block"),
    "triangle": ("wedge", "pyramid"),
    "cross": ("plus", "plus sign"),
    "ring": ("hoop", "doughnut"),
    "star": ("pentagram", "asterisk"),
    "striped": ("banded", "stripy"),
    "checkered": ("chequered", "chessboard"),
    "solid": ("plain", "uniform"),
    "small": ("tiny", "little"),
    "large": ("big", "sizeable"),
}
NUMBER_SYNONYMS = {2: ("a pair of", "2"), 3: ("a trio of", "3"), 4: ("a quartet of", "4")}

RELATION_TEMPLATES: dict[str, tuple[str, ...]] = {
    "left of": ("{a} to the left of {b}", "{a} left of {b}", "{a} on the left of {b}"),
    "right of": ("{a} to the right of {b}", "{a} right of {b}", "{a} on the right of {b}"),
    "above": ("{a} above {b}", "{a} over {b}", "{a} higher than {b}"),
    "below": ("{a} below {b}", "{a} under {b}", "{a} lower than {b}"),
    "touching": ("{a} touching {b}", "{a} that touches {b}", "{a} right up against {b}"),
    "inside": ("{a} inside {b}", "{a} within {b}", "{a} in the middle of {b}"),
    "in front of": ("{a} in front of {b}", "{a} overlapping {b} from the front", "{a} partly covering {b}"),
}
UNSEEN_RELATION_TEMPLATES: dict[str, tuple[str, ...]] = {
    "left of": ("{b} with {a} on its left", "{b} that has {a} to its left side"),
    "right of": ("{b} with {a} on its right", "{b} that has {a} to its right side"),
    "above": ("{b} beneath {a}", "{b} with {a} on top"),
    "below": ("{b} topping {a}", "{b} with {a} at its foot"),
    "touching": ("{a} in contact with {b}", "{a} and {b} side by side without a gap"),
    "inside": ("{b} surrounding {a}", "{b} that contains {a}"),
    "in front of": ("{b} behind {a}", "{b} partly hidden by {a}"),
}

OPENINGS = (
    "{x}",
    "{x}",
    "a picture of {x}",
    "an image of {x}",
    "you see {x}",
    "{x} on a grey ground",
)
PLACE_TEMPLATES: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "in the left half"),
    "right": ("on the right", "in the right half"),
    "top": ("at the top", "in the upper half"),
    "bottom": ("at the bottom", "in the lower half"),
}
LONG_OPENINGS = (
    "the picture shows {x} .",
    "in this picture there is {x} .",
    "this is a drawing of {x} .",
)
LONG_SECONDS = {
    "left of": "{b} is to the right of it .",
    "right of": "{b} is to the left of it .",
    "above": "{b} is below it .",
    "below": "{b} is above it .",
}
LONG_ENDINGS = (
    "the ground is plain grey .",
    "nothing else is in the picture .",
    "everything lies on a calm grey ground .",
    "the colours are flat and the edges are clean .",
    "there is nothing else to see .",
)
