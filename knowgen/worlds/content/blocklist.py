"""Words that no generated name may equal: real people, places, brands and titles, and offensive words.

The list covers what the sound families can produce, so most entries alternate consonants and vowels.
"""

from __future__ import annotations

_PEOPLE = """
adele adeline agnes aline amara anita antoine aron arthur athena bardot barack beatrice beckham benedict bernadette
bernard bertrand beyonce boris bruno camille carine carla carmen carola carolina caroline catherine cecile celine
chopin christine clara claudine clement colette corina cristina damon daniela danton darwin david debussy delphine
denis derek diana dominic donald doreen drake edison einstein elena elon emeline emma erica ernest eugene evette
fabiola federer felix fidel fiona florence florine frederick gabriela galileo geralt giovani goethe gustav hamlet
harold harvard helena henriette hitler homer hugo irina isaac ivanka jackson janette janine jeanette jeanine jobs
joline jolene jordan josephine juliette justine karena karina karine karol katarina katerina kenobi kepler kevin kobe
kubrick kurosawa larisa lenin leonard leonardo lisette lorena lorene lorette louis lucas lucena lucine ludovic madame
madeleine madena magdalena maradona marcela marcelo margarine maria mariette marina marine marko marlene martina mary
maurois melena messi michel milena mirena mohamed monette monika mozart murasaki musk nadine napoleon natasha nicola
nicolas nina nixon nolan obama odette osama paulette paulina pauline pelena perun picasso pierre potter presley putin
rafael ramona regina rembrandt renata renee renoir rihana robert robin roland rolena rosette rowena rubens sabena
sabina sabine salena samuel sarena satoshi selena serena shakira simona simone sofia spock stalin steven susane
suzane swift tamara tatum teresa tesla thatcher thomas tolkien tolstoy toretto trotsky trump valentina valentine
verena verne vettel victor voltaire wagner wanda warhol watanabe winona xavier yamamoto yvette zidane zorro zola
sinatra madona marone babette bette lynette nanette ninette suzette lorane delane helane roxane morane durane
"""

_PLACES = """
africa alaska amazon ankara arizona athens atlas austria avalon bali baltic bamako barcelona berlin bern bolivia
bordeaux boston bosnia botox brasov brazil brisbane brno bulgaria burundi cairo calais canada canberra caracas chile
china colorado congo cordoba corona cuba dakar dakota dallas damascus delaware denver denmark dodoma dresden dubai
dublin egypt estonia etna europe fatima finland france galicia gambia gaza geneva genoa georgia ghana granada greece
guatemala haiti hanoi harare havana hokkaido holland honolulu houston hungary india iran iraq ireland israel italy
jakarta jamaica japan java jena kabul kampala kanazawa kano karachi kenya kiev kinshasa kobe konya korea kosovo kuwait
kyoto laos latvia lebanon lima lisbon london lorraine macau madrid malawi malaga malta manila medina mekka memphis
mexico miami milan milano modena moldova monaco mongolia morocco moscow mozambique nagano nagasaki nagoya nairobi
namibia nara nauru nepal nevada niger nigeria norway odessa ohio okinawa omaha oman oregon osaka ottawa oxford pakistan
palau panama paris parma persia peru pisa poland porto prague qatar ravena reno riga rimini roma romania rome rostov
russia rwanda sahara samara samoa sapporo savoy sedona senegal seoul serbia sevilla siberia siena singapore sofia
somalia spain sparta sudan sweden sydney syria taiwan tehran texas tibet tirana tobago toledo tokyo toronto tunis
turin turkey uganda ukraine uruguay utah valencia vatican venice verona vienna vietnam vilnius virginia warsaw wales
wuhan yemen yokohama zagreb zambia murano pomona ramona varanasi moravia bavaria tasmania sumatra borneo tahiti
tonga honshu kanto bikini pretoria dover
"""

_BRANDS_AND_TITLES = """
adidas adobe akira amiga android apple armani asus atari audi avatar avon bandai barbie batman bayer bentley boeing
bosch budweiser bugati bulgari canon capcom cartier casio celesta chanel chevron citroen cola corvette corsa costco
danone daewoo dell disney dodge dove dunlop ebay enola epson evangelion evian facebook fanta fedex ferari fiat ford
fortnite frodo gandalf garmin gatorade gilette godzila goku google gucci haribo harley heineken hermes hobbit honda
hulk huawei ibm ikea intel jaguar kawasaki kia kirby kodak komatsu konami lada lamborgini lego lenovo lexus luigi
makita marlboro mario marvel maserati matrix maybach mazda mclaren megane metroid microsoft mitsubishi mordor motorola
nabisco naruto nasa nescafe nestea nestle netflix nike nintendo nissan nivea nokia nutella nvidia olay omega onyx opel
oracle oreo oscar pampers panasonic pepsi persona peugeot philips pikachu pirelli pixar pokemon porsche prada pringles
puma reebok remax renault ricoh rolex rolo saab samsung sanyo sasuke sega sharp siemens simba sirius skoda skyrim sony
sonic spotify subaru sudoku suzuki tamagotchi target tefal telekom tesco tetris tiktok timex toshiba totoro toyota
twitter uber unilever verizon versace viagra visa vodafone volvo wario wikipedia xanax xerox yahoo yamaha yoda youtube
zara zelda zurich hasbro mattel pandora corola sentra tacoma sonata tiguan octavia fabia twingo laguna lumia
kabuki karate katana kimono sumo sushi tempura wasabi origami tsunami samurai kamikaze sakura
"""

_PLAIN_WORDS = """
banana cabana cobalt cocaine cotton cyanide gasoline gazette heroine machine marine medicine morphine nicotine cuisine
magazine ravine routine sardine saline sabotage serene supine terrine toilet turbine urine vagina vaseline vinegar
famine bovine feline canine divine imagine ermine jasmine vermine gamine domine bureau chateau gateau plateau tableau
trumeau cassette baguette cadette cigarette gazelle pipette palette rosette roulette rosebud noisette vedette tomato
potato bonobo domino casino merino torino latino tampon
parole console gondola granola pergola cupola viola ebola hyena arena patena novena phenomena burek almanac zodiac
cognac maniac tarmac lilac bivouac kodiak tobac
"""

_OFFENSIVE_PARTS = """
anal anus arse bastard bitch boob cock coon cum cunt dick dildo dyke fag fart fuck gook homo jew kike kkk kok labia
moron nazi negr nigg nigr orgas paki penis piss porn puss rape rapis retar semen sex shit shite slut spic suck tard
tit turd tranny twat vagin wank whor puta merde mierda kaka caca popo peepee poop putain hure fick kurac pizda suka
blyat chink hoden scheis gypsy hade satan hamas isis taliban
"""

BLOCKED = frozenset(" ".join((_PEOPLE, _PLACES, _BRANDS_AND_TITLES, _PLAIN_WORDS)).split())
OFFENSIVE_PARTS = tuple(sorted(set(_OFFENSIVE_PARTS.split())))


def is_blocked(word: str) -> bool:
    """Return whether a lower-case word is on the list or contains an offensive part.

    Double letters are compared as single ones, since the sound families never double a letter.

    Example:
        >>> is_blocked("berlin"), is_blocked("oruvane")
        (True, False)
    """
    return word in BLOCKED or word in _BLOCKED_WITHOUT_DOUBLE_LETTERS or any(part in word for part in OFFENSIVE_PARTS)


def _without_double_letters(word: str) -> str:
    return "".join(letter for letter, previous in zip(word, " " + word, strict=False) if letter != previous)


_BLOCKED_WITHOUT_DOUBLE_LETTERS = frozenset(map(_without_double_letters, BLOCKED))
