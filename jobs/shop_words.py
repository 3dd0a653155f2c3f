"""The words of the simulated shop: categories with the nouns that fit them, adjectives, brand names."""

from __future__ import annotations

CATEGORIES = (
    ("Shoes", "sneaker boot sandal loafer slipper"),
    ("Jackets", "parka anorak blazer raincoat vest"),
    ("Shirts", "shirt blouse polo henley tunic"),
    ("Trousers", "jeans chinos shorts leggings joggers"),
    ("Bags", "backpack tote satchel duffel pouch"),
    ("Jewellery", "ring bracelet necklace brooch earring"),
    ("Watches", "chronograph wristwatch strap pocketwatch dial"),
    ("Headphones", "earbuds headset headphones soundbar speaker"),
    ("Phones", "phone charger case stylus powerbank"),
    ("Computers", "laptop keyboard mouse monitor dock"),
    ("Cameras", "camera lens tripod filter flash"),
    ("Games", "controller console joystick cartridge gamepad"),
    ("Boardgames", "puzzle dice boardgame cards domino"),
    ("Toys", "robot doll truck kite blocks"),
    ("Books", "novel cookbook atlas memoir thriller"),
    ("Comics", "manga comic anthology artbook zine"),
    ("Music", "guitar ukulele drum keyboard harmonica"),
    ("Kitchen", "skillet kettle knife whisk casserole"),
    ("Tableware", "plate mug bowl carafe tumbler"),
    ("Coffee", "espresso grinder dripper beans frother"),
    ("Tea", "teapot infuser oolong matcha sencha"),
    ("Garden", "trowel planter hose secateurs lantern"),
    ("Plants", "fern cactus monstera orchid bonsai"),
    ("Lighting", "lamp sconce pendant bulb candle"),
    ("Furniture", "stool shelf desk armchair bench"),
    ("Bedding", "duvet pillow blanket quilt sheet"),
    ("Bath", "towel soap robe bathmat sponge"),
    ("Skincare", "serum cream balm toner cleanser"),
    ("Perfume", "cologne perfume mist oil incense"),
    ("Fitness", "dumbbell mat kettlebell roller rope"),
    ("Cycling", "helmet saddle pedal pannier pump"),
    ("Camping", "tent stove hammock flask torch"),
    ("Running", "tights singlet gaiter armband visor"),
    ("Pets", "leash collar kennel scratcher feeder"),
    ("Stationery", "notebook pen planner stapler inkwell"),
    ("Tools", "hammer drill wrench saw chisel"),
)
EDITIONS = ("", "Kids", "Travel", "Vintage", "Studio", "Outdoor", "Office", "Mini")
"""More categories than there are words for: the same words again in another edition."""

STYLES = (
    "plain budget basic",
    "cosy rustic woven",
    "urban slim matte",
    "classic oak linen",
    "sleek carbon steel",
    "handmade silk gilded",
)
"""Adjectives of each style, from cheap to dear."""

COLOURS = (
    "black",
    "white",
    "red",
    "blue",
    "green",
    "grey",
    "amber",
    "teal",
    "coral",
    "ivory",
    "olive",
    "plum",
    "sand",
    "rose",
    "navy",
    "rust",
)

COUNTRIES = ("DE", "FR", "GB", "ES", "IT", "NL", "PL", "SE")
AGE_GROUPS = ("18-24", "25-34", "35-44", "45-54", "55-64", "65+")
DEVICES = ("app", "mobile", "desktop")

_ONSETS = (
    "bar",
    "cal",
    "del",
    "fen",
    "gor",
    "hal",
    "jun",
    "kel",
    "lum",
    "mar",
    "nor",
    "oro",
    "pel",
    "qui",
    "ros",
    "sol",
    "tam",
    "ulv",
    "ver",
    "wil",
)
_ENDINGS = (
    "a",
    "co",
    "dan",
    "elle",
    "fort",
    "gram",
    "ia",
    "kin",
    "lo",
    "mont",
)


def category_name(index: int) -> str:
    """The name of a category; all different below 288."""
    edition, word = divmod(index, len(CATEGORIES))
    return f"{EDITIONS[edition]} {CATEGORIES[word][0]}".strip()


def category_nouns(index: int) -> list[str]:
    """The nouns of a category's titles."""
    return CATEGORIES[index % len(CATEGORIES)][1].split()


def brand_name(index: int) -> str:
    """The name of a brand; all different."""
    round_, rest = divmod(index, len(_ONSETS) * len(_ENDINGS))
    onset, ending = divmod(rest, len(_ENDINGS))
    name = (_ONSETS[onset] + _ENDINGS[ending]).capitalize()
    return f"{name} {round_ + 1}" if round_ else name
