"""The texts of the built-in shop in six languages, each with the legacy charset of some of its pages.

Every character of a language exists in its legacy charset, and means the same in Python's codec as in the WHATWG
Encoding Standard's (so no wave dash, backslash or yen sign in the Japanese).
"""

from __future__ import annotations

import msgspec

__all__ = ["LANGUAGES", "Language"]


class Language(msgspec.Struct, frozen=True):
    """The shop's name, its goods, and the parts its sentences are made of, in one language.

    ``price`` is a format for the whole units and the hundredths (``{0}``, ``{1:02}``). ``labels`` are the basket
    button, the headings of the reviews and of the related goods, and the link home. ``space`` separates sentences.
    """

    code: str
    legacy_charset: str
    shop: str
    coffees: tuple[str, ...]
    price: str
    tags: tuple[str, ...]
    labels: tuple[str, str, str, str]
    starts: tuple[str, ...]
    middles: tuple[str, ...]
    ends: tuple[str, ...]
    space: str = " "

    @property
    def sentences(self) -> list[str]:
        """Return every sentence the parts can make."""
        return [start + middle + end for start in self.starts for middle in self.middles for end in self.ends]


ENGLISH = Language(
    code="en",
    legacy_charset="windows-1252",
    shop="Bean & Binding",
    coffees=("Yirgacheffe", "Huila Decaf", "Long Rain Blend", "Café Nocturne", "Kirinyaga AA", "Slow Sunday Espresso"),
    price="£{0}.{1:02}",
    tags=("single origin", "washed", "natural", "decaf", "for filter", "for espresso"),
    labels=("Add to basket", "What readers say", "Goes well with", "Home"),
    starts=(
        "We roast it on Tuesdays",
        "It was grown above 1,900 metres",
        "The growers’ cooperative calls it “the patient one”",
        "Our naïve first guess was apricot",
        "A letterpress card comes with every bag",
        "Brewed in a cafetière",
    ),
    middles=(
        " and rested for nine days,",
        ", picked by hand,",
        " – as the catalogue says –",
        ", with jasmine and à la carte sweetness,",
        ", next to a good book,",
        " at 93 °C,",
    ),
    ends=(
        " it keeps its shape to the last cup.",
        " it tastes of blackcurrant and cocoa.",
        " it opens slowly, like a novel.",
        " it forgives a coarse grinder.",
        " it asks for no milk — but takes some.",
    ),
)

FRENCH = Language(
    code="fr",
    legacy_charset="windows-1252",
    shop="Le Grain & la Page",
    coffees=("Moka d’Éthiopie", "Brûlerie du Port", "Café crème", "Goût du matin", "Forêt de Huehuetenango"),
    price="{0},{1:02} €",
    tags=("pure origine", "lavé", "séché au soleil", "décaféiné", "pour filtre"),
    labels=("Ajouter au panier", "L’avis des lecteurs", "À goûter aussi", "Accueil"),
    starts=(
        "Torréfié chaque mardi",
        "Cultivé à 1 800 mètres d’altitude",
        "Livré avec une carte imprimée au plomb",
        "Préparé à la cafetière à piston",
        "Né d’une récolte tardive",
    ),
    middles=(
        " et reposé neuf jours,",
        ", cueilli à la main,",
        " – c’est le producteur qui l’écrit –",
        ", près d’un bon livre,",
        ", sans hâte,",
    ),
    ends=(
        " il garde sa forme jusqu’à la dernière gorgée.",
        " il rappelle le cassis et le cacao.",
        " il s’ouvre lentement, comme un roman.",
        " il pardonne une mouture grossière.",
        " il préfère l’eau à 93 °C.",
    ),
)

GERMAN = Language(
    code="de",
    legacy_charset="windows-1252",
    shop="Bohne & Söhne",
    coffees=("Hochland Äthiopien", "Kölner Mischung", "Süße Müdigkeit", "Grüner Bär", "Frühstück für Große"),
    price="{0},{1:02} €",
    tags=("sortenrein", "gewaschen", "natürlich", "entkoffeiniert", "für Filter"),
    labels=("In den Korb", "Was Leser sagen", "Dazu passt", "Startseite"),
    starts=(
        "Dienstags wird geröstet",
        "Auf 1.900 Metern gewachsen",
        "Mit einer handgesetzten Karte verschickt",
        "In der Stempelkanne gebrüht",
        "Aus später Ernte",
    ),
    middles=(
        " und neun Tage geruht:",
        ", von Hand gepflückt:",
        ", so steht’s im Katalog:",
        ", neben einem guten Buch:",
        ", bei 93 °C:",
    ),
    ends=(
        " ein Kaffee, der bis zum letzten Schluck Form hält.",
        " schwarze Johannisbeere, Kakao, ein Hauch Honig.",
        " er öffnet sich langsam wie ein Roman.",
        " auch eine grobe Mühle verzeiht er.",
        " schön süß, für Geduldige.",
    ),
)

POLISH = Language(
    code="pl",
    legacy_charset="iso-8859-2",
    shop="Ziarno i Książka",
    coffees=("Gorąca Jesień", "Świt nad Wisłą", "Źródło", "Łagodna Etiopia", "Żółta Mgła"),
    price="{0},{1:02} zł",
    tags=("jedno pochodzenie", "myta", "suszona na słońcu", "bezkofeinowa", "do filtra"),
    labels=("Dodaj do koszyka", "Głosy czytelników", "Pasuje do", "Strona główna"),
    starts=(
        "Palimy ją we wtorki",
        "Rośnie na wysokości 1900 metrów",
        "Do każdej paczki dołączamy drukowaną kartkę",
        "Parzona w zaparzaczu tłokowym",
        "Z późnych zbiorów",
    ),
    middles=(
        " i leżakuje dziewięć dni,",
        ", zbierana ręcznie,",
        " - jak mówi katalog -",
        ", obok dobrej książki,",
        ", bez pośpiechu,",
    ),
    ends=(
        " zachowuje kształt do ostatniego łyku.",
        " smakuje porzeczką i kakao.",
        " otwiera się powoli jak powieść.",
        " wybacza gruby przemiał.",
        " nie potrzebuje mleka, choć je przyjmie.",
    ),
)

RUSSIAN = Language(
    code="ru",
    legacy_charset="koi8-r",
    shop="Зерно и Книга",
    coffees=("Долгий дождь", "Ночной поезд", "Эфиопия Сидамо", "Тихое воскресенье", "Чёрная смородина"),
    price="{0} руб. {1:02} коп.",
    tags=("один регион", "мытый", "натуральный", "без кофеина", "для фильтра"),
    labels=("В корзину", "Что говорят читатели", "Хорошо сочетается", "Главная"),
    starts=(
        "Мы обжариваем его по вторникам",
        "Он вырос на высоте 1900 метров",
        "К каждой пачке приложена печатная открытка",
        "Во френч-прессе",
        "Из позднего урожая",
    ),
    middles=(
        " и даём отдохнуть девять дней,",
        ", собранный вручную,",
        ", как пишет каталог,",
        ", рядом с хорошей книгой,",
        ", без спешки,",
    ),
    ends=(
        " и держит форму до последнего глотка.",
        " с нотами смородины и какао.",
        " раскрывается медленно, как роман.",
        " прощает грубый помол.",
        " молока не просит, но и не откажется.",
    ),
)

JAPANESE = Language(
    code="ja",
    legacy_charset="shift_jis",
    shop="豆と本の店",
    coffees=("エチオピア・シダモ", "夜明けのブレンド", "深煎り珈琲", "ゆっくり日曜日", "雨の日の一杯"),
    price="{0},{1:02}0円",
    tags=("単一農園", "水洗式", "天日乾燥", "カフェインレス", "ドリップ用"),
    labels=("かごに入れる", "読者の声", "一緒にいかが", "ホーム"),
    starts=(
        "毎週火曜日に焙煎し、",
        "標高1900メートルの畑で育ち、",
        "活版印刷のカードを添えて、",
        "フレンチプレスで淹れると、",
        "遅い収穫の豆は、",
    ),
    middles=("九日間休ませた後、", "ひと粒ずつ手で摘まれ、", "良い本のとなりで、", "93度のお湯で、", "急がずに、"),
    ends=(
        "最後の一口まで味が続きます。",
        "カシスとカカオの香りがします。",
        "小説のようにゆっくり開きます。",
        "粗い挽き方でも大丈夫です。",
        "ミルクがなくても甘い。",
    ),
    space="",
)

LANGUAGES = {language.code: language for language in (ENGLISH, FRENCH, GERMAN, POLISH, RUSSIAN, JAPANESE)}
