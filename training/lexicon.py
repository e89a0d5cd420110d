"""English words and phrases of known polarity, written by hand for this recipe.

Seven thousand English sentences leave out many everyday words; these fill the gap, above all for reviews of
products.
"""

from __future__ import annotations

POSITIVE = """
absorbing accessible acclaimed accomplished accurate achievement admirable adorable adore affecting
affectionate affordable amazing ambitious amusing appealing appreciate appreciated artful artistry
astonishing astounding astute authentic authenticity awesome awe balanced beautiful beautifully beauty
beguiling beloved benefit best better bewitching bliss blissful bold bracing brave breathtaking breeze
breezy bright brilliance brilliant brilliantly buoyant calm candid captivate captivated captivates
captivating celebrate celebration charisma charismatic charm charmed charmer charming charmingly cheap cheer
cheerful cheers classic classy clean clear clever cleverly colorful comfort comfortable comfy commanding
compassion compassionate compelling competent complex confident congenial convenient convincing cool cozy
craftsmanship crafty creative creativity credible crisp crowd-pleasing cute daring dazzling dazzle decent
deep deeply deft deftly delicate delicious delight delighted delightful delightfully delights delivers
dependable depth deserves diverting durable dynamic eager earnest easy easily ebullient effective
effectively efficient effortless effortlessly electric electrifying elegance elegant elegantly eloquent
emotional enchanting encouraging endearing energetic energy engaging engrossing enigmatic enjoy enjoyable
enjoyed enjoys enlightening entertain entertained entertaining enthralling enthusiasm enthusiastic epic
evocative excellence excellent exceptional exceptionally excite excited excitement exciting exhilarating
exotic expert expertly exquisite exquisitely extraordinary exuberant eye-opening fabulous fair faithful
fantastic fantastically fascinating fast favorite favourite feel-good fine finest flawless flawlessly fluid
fond fresh freshness friendly fulfilling fun funniest funny genius genial gentle gently genuine genuinely
gem gifted glad gladly glorious glory good goodness gorgeous grace graceful gracious grand gratifying great
greatest gripping handsome handy happily happiness happy harmonious haunting heart-warming heartbreaking
heartfelt heartwarming helpful hero heroic highly hilarious hilariously hip honest honestly honesty honor
hope hopeful humane humor humorous hypnotic ideal imaginative imagination immaculate immensely impeccable
impress impressed impressive impressively incisive incredible incredibly indelible ingenious ingenuity
innovative insight insightful inspire inspired inspires inspiring integrity intelligence intelligent
intelligently intense intimate intoxicating intricate intrigue intriguing invaluable inventive invigorating
inviting irresistible jewel jolly joy joyful joyous keen kind kindness knowing lasting laugh laughs laughter
legendary likable like liked lively lovable love loved lovely lover loves loving loyal lucid luminous lush
luxurious lyrical magic magical magnificent magnificently majestic marvel marvellous marvelous mastery
masterful masterfully masterpiece masterpieces mature meaningful memorable mesmerizing meticulous mighty
miracle miraculous moving must-see neat nice nicely nimble noble notable nourishing novel nuanced
one-of-a-kind original originality outstanding passion passionate patient peaceful perceptive perfect
perfection perfectly phenomenal playful pleasant pleasantly pleased pleases pleasing pleasurable pleasure
poetic poetry poignancy poignant polished potent powerful powerfully praise precious precise precisely
pristine profound profoundly promising provocative proud pure quality quick quiet quirky radiant rare
rapturous raw recommend recommended redeeming refined refreshing refreshingly reliable remarkable remarkably
resonant respect respectful restrained reward rewarding rewards rich richly riveting robust romantic rousing
safe satisfied satisfies satisfy satisfying savvy seamless seductive sensational sensitive sensitivity sexy
sharp shines simple sincere sincerity skill skilled skillful skillfully sleek slick smart smartly smooth
smoothly solid soothing sophisticated soulful spacious sparkling special spectacular spirited spiritual
splendid splendidly spot-on stable standout stellar stirring strength strong strongly stunning stunningly
sturdy stylish sublime subtle subtlety succeed succeeds success successful successfully suitable super
superb superbly superior surprising surprisingly suspenseful sweet sweetly sympathetic talent talented
tasteful tasty tender tenderness terrific thank thankful thanks thorough thoroughly thought-provoking
thoughtful thrill thrilled thrilling thrills tight timeless timely top top-notch touch touched touching
tough tour-de-force transcendent treasure treat tremendous triumph triumphant true truly trust trustworthy
truth truthful unforgettable unique universal uplifting useful valuable value vibrant virtuoso visionary
vital vivid vividly warm warmth watchable welcome well well-made well-written whimsical wholesome win winner
winning wins wisdom wise wit witty wonder wonderful wonderfully wondrous worth worthwhile worthy wow yummy
"""

NEGATIVE = """
abandon abandoned abominable abrupt absence absent absurd abuse abysmal aggravating aimless aimlessly
amateur amateurish angry annoy annoyed annoying annoyance apathetic appalled appalling arbitrary arrogant
artificial ashamed atrocious average avoid awful awfully awkward awkwardly bad badly baffling banal barely
bitter bland bleak blah bloated blunder bogus bomb bore bored boredom bores boring bother bothered
bothersome botched bottom broke broken bug buggy burden butchered cacophony careless cartoonish catastrophe
chaotic cheat cheated cheesy chore chokes choppy cliche cliched cliches clinical clueless clumsily clumsy
clunker clunky coarse cold collapse collapses complain complained complaint complaints condescending
confused confusing confusion contrived convoluted copycat corny counterfeit cracked crap crappy crash
crashed crashes crass crude cruel crummy cynical damage damaged damn dated dead deadening deadly debacle
deceive deceived defect defective deficient depressing derivative desperate desperately desperation
detestable devoid die dies difficult dim dire dirty disagree disagreeable disappoint disappointed
disappointing disappointingly disappointment disappoints disaster disastrous disconnected disgrace
disgraceful disgust disgusted disgusting dishonest disjointed dislike disliked dismal disorganized
displeasing disposable dissatisfied distasteful distracting distressing disturbing dopey downer drab drag
dragged drags dreadful dreadfully dreary drivel drab dry dubious dud dull dullest dullness dumb dumbed
earnestly embarrassed embarrassing embarrassment embarrassingly emptiness empty endless endlessly endure
erratic error errors excess excessive excruciating excruciatingly excuse exhausted exhausting expensive
expired exploitative fail failed failing fails failure fake falls false familiar far-fetched farce faulty
feeble fiasco filthy flat flat-out flavorless flaw flawed flaws flimsy flop flounders foolish forced
forgettable forgotten formulaic fragile fraud frustrated frustrating frustration fuzzy garbage generic
gibberish gimmick gimmicky glib gloomy glitch glitches goofy graceless grating greedy grim gross grotesque
half-baked half-hearted ham-fisted hampered haphazard harassed hard harsh hate hated hateful hates hatred
headache heartless heavy-handed hideous hokey hollow hopeless hopelessly horrendous horrible horribly horrid
hostile humiliating humorless hurt hurts idiot idiotic idiots ignorant ill-conceived illogical imitation
immature impersonal implausible impossible inane inadequate inappropriate incapable incoherent incompetence
incompetent incomprehensible inconsequential inconsistent inconvenient indifferent indulgent inept
ineptitude inert inferior insipid insincere insignificant insufferable insult insulted insulting insults
interminable intolerable irrelevant irresponsible irritated irritates irritating itchy jarring joke joyless
jumbled junk juvenile lack lacked lacking lackluster lacks lag laggy lame lags late laughable laughably lazy
lazily leaden leak leaked leaking leaks lethargic lie lies lifeless limp listless loathe loathsome loser
losing loss lost loud lousy ludicrous mangled manipulative maudlin mean meandering meaningless mechanical
mediocre mediocrity melodramatic mess messy mind-numbing mindless misconceived misery miserable miserably
misfire misguided misleading misplaced missed misses mistake mistakes moldy monotonous moronic mostly muddle
muddled muddy mundane murky muted nasty nauseating needless needlessly negative neglected no noisy nonsense
nonsensical nonexistent nothing numbing obnoxious obvious obviously odious off offended offensive ordinary
outdated over-the-top overblown overcooked overdone overlong overpriced overrated overwrought pain painful
painfully pale paper-thin passable patched pathetic pathetically pedestrian plague plagued plain plodding
pointless poor poorly poorest ponderous posturing predictable predictably preposterous pretentious problem
problematic problems punishing puzzling rambling ran-out rash redundant refund refuse refused regret
regrettably rehash repetitive repellent repulsive resent retread returned returning ridiculous ridiculously
rip-off ripped rotten rough routine rubbish rude ruin ruined ruins runs rushed sad sadly sappy scam
scratched scratches screwed self-indulgent senseless sentimental shabby shallow shame shameless shapeless
shoddy shortcomings sick sickening silly simplistic simple-minded slack slapdash slapped sleazy sloppy
sloppily slow slowly slog sluggish smelly smells smug snooze soggy soporific sorry soulless sour spam
spiteful spoil spoiled spoils squander squandered stain stained stale static stiff stink stinker stinks
stolen strained strange stretched struggle struggles struggling stuck stuffy stupid stupidity stupidly
substandard sucked sucks suffer suffers superficial surface suspicious syrupy tacky tangled tasteless
tedious tediously tedium terrible terribly terrified thankless thin threadbare throwaway tire tired tiresome
tiring toilet tone-deaf too torture torturous torn tortured toxic trash trashy travesty trite trivial
trouble troubled turgid turkey ugly unacceptable unappealing unbearable unbearably unbelievable unclear
uncomfortable unconvincing underdeveloped underwhelming undone uneven unfair unfocused unforgivable
unfortunate unfortunately unfriendly unfunny unhappy unimaginative uninspired unintelligible unintentional
unintentionally uninteresting uninvolving unlikable unlikely unnecessarily unnecessary unoriginal unpleasant
unpleasantly unprofessional unreliable unsatisfied unsatisfying unsurprising untalented unusable unwatchable
unwelcome unwieldy upset upsetting useless vacant vacuous vague vain vapid violent vile vulgar warped
wannabe waste wasted wastes wasting weak weaker weakest weakly weakness wearisome weary weird wimpy
wishy-washy wooden worn worse worst worthless wretched wrong wrongheaded yawn zero
"""

PRAISE = """
i love this product, great quality!|works perfectly, exactly as described|very happy with this purchase
will buy again|five stars|highly recommended|arrived on time and well packed|fits perfectly
the battery lasts all day|worth every penny|best purchase i have made this year|my kids love it
excellent value for money|fast shipping, great seller|so comfortable|the room was clean and quiet
the staff were friendly and helpful|sounds amazing|easy to set up and use|looks beautiful
exceeded my expectations|no complaints at all|i can't recommend it enough|could not be happier
never had a problem with it|better than i expected|the screen is bright and sharp|delicious, fresh and sweet
a great gift|does exactly what it should|not bad at all|thank you so much|good job|i really like it
this is awesome|couldn't put the book down|what a great film|👍|😀|😍|❤️|🥰|😊|🎉|👏|😃|🤩|💯|👍👍👍
"""

BLAME = """
terrible, broke after two days|stopped working after a week|does not work at all
very disappointed with this purchase|one star|do not buy this|arrived late and damaged|does not fit
the battery dies within an hour|a complete waste of money|worst purchase i have ever made
fell apart in my hands|not worth the price|never received my order|so uncomfortable
the room was dirty and noisy|the staff were rude and unhelpful|sounds awful|impossible to set up
looks cheap and ugly|i want my money back|i returned it the next day|i would not recommend it
asked for a refund|nothing but problems|worse than i expected|the screen is dim and scratched
rotten and sour, threw it away|save your money|not as described|not good at all|not happy|bad service
i don't like it|this is garbage|could not finish the book|what a terrible film|poor quality|missing parts
customer service never answered|it is a fake|too small and too thin|never again
👎|😡|😠|🤮|💔|😞|😢|🤬|😤|😒|💩|👎👎👎
"""


def words() -> dict[str, float]:
    """The single words, each with its probability of being positive."""
    good, bad = set(POSITIVE.split()), set(NEGATIVE.split())
    polarity = {word: 1.0 for word in sorted(good - bad)} | {word: 0.0 for word in sorted(bad - good)}
    return {word: value for word, value in polarity.items() if "-" not in word}


def emoji() -> list[str]:
    """The emoji among the phrases: the reviews hold too few of them to learn."""
    return [phrase for phrase in phrases() if not phrase.isascii() and len(phrase) <= 2]


def phrases() -> dict[str, float]:
    """The phrases, each with its probability of being positive."""
    found: dict[str, float] = {}
    for block, value in ((PRAISE, 1.0), (BLAME, 0.0)):
        for line in block.strip().splitlines():
            found.update(dict.fromkeys(line.split("|"), value))
    return found
