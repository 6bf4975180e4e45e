"""Closed lists of English words for extracting phrases without a parser."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DETERMINERS = _words("""
    a an the this that these those his her its their our my your one two three four five six seven eight
    nine ten many some several each every another both all
""")

PREPOSITIONS = _words("""
    about above across after against along alongside among around as at atop before behind below beneath
    beside besides between beyond by down during except facing for from in inside into like near nearby
    next off on onto opposite out outside over past through throughout to toward towards under
    underneath until up upon via with within without of
""")

LINKS = _words("""
    and or but nor while when where which who whose that than then so because if though although not no
""")

PRONOUNS = _words("""
    i he she it they we you him them us me there here himself herself itself
""")

AUXILIARIES = _words("""
    is are was were be been being am has have had having does do did will would can could may might must
    shall should
""")

VERBS = _words("""
    accompany adorn adorns attract attracts bake became become becomes began begins bloom blooms boil
    bring brings came carries carry comes contain contains embraced emit fell features fills flew float floats
    flow follow follows gave gaze gazes give gives glides goes grab grabs grew hang hangs held hold
    holds hung illuminate illuminates jot keep keeps kept laid lay leaned leans led lies lit looks loom
    made makes met mix painted perch perches pound preach propel provide provides ran reads release
    releases rested rests ride rides runs sank sat saw serve serves shines shone shook shows sings sit
    sits slept slice smells sped spun stand stands stir stood swam swept swim swims take takes threw
    told took tossed turns walk walks was watches wear wears went woke wore write writes wrote
""")
"""Forms that are always verbs in a prompt."""

VERBS_AFTER_NOUNS = _words("""
    beat cook cover covers cut cuts display displays drive drives drove fly flies grows hike hits light
    lights measure nap overlook play plays rest rises shape sail sleep sleeps stretch surround
""")
"""Forms that are verbs only after a noun and before a new phrase: "the pens rest on the desk"."""

NO_PARTICIPLES = _words("""
    bed red shed sled seed weed feed need reed steed thread bread ring king wing string spring swing
    ceiling building clothing earring evening morning painting pudding railing sibling wedding drawing
    flooring icing lightning setting siding sting thing nothing something anything duckling dumpling
    bowling
""")
"""Words that end like participles but are not."""

ADJECTIVES = _words("""
    ancient angular antique beige big black blue bright broken brown bumpy bushy calm checkered chilled
    chilly choppy circular clean clear cold colorful colourful conical cool cozy cracked crescent crisp
    crispy crunchy cubic curly curved curvy cylindrical damp dark deep delicate delicious dim distant
    dry dull dusty elegant empty fabric fiery fluffy fragile fragrant fresh fuzzy gentle giant glass
    glossy glowing gnarled gold golden graceful grand gray greasy green grey hard hardcover heavy hot
    huge icy intricate iridescent jagged juicy large leather long lumpy matte metal metallic modern
    murky narrow new oblong old opaque orange oval peaceful pentagonal pink plain plastic polished
    powerful prickly pungent purple pyramidal quiet rectangular red rhythmic rich ripe rocky romantic
    rough round rounded rubber rugged rusted rustic rusty sharp shimmering shiny short silky silver
    sizzling sleek slimy slushy small smooth soft sour sparkling spherical spiky square still straight
    striped sturdy sweet tall tan tart teardrop textured thick thin thorny tiled tiny tired translucent
    transparent triangular vast vibrant warm wet white wide wild wooden yellow young
""")
"""Adjectives of T2I-CompBench's prompts."""
