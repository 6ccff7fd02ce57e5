"""The built-in text that quality is measured on."""

BUILT_IN_TEXT = '''\
The lighthouse at the end of the harbour wall had been dark for eleven years when Marta Lind bought
it. The sale took one afternoon. A clerk in the district office found the deed in a drawer, blew the
dust off, and asked what she meant to do with a tower that nobody could reach at high tide. "Live in
it," she said, and the clerk wrote that down as if it were a perfectly ordinary answer.

There were one hundred and sixty-two steps. She counted them on the first day, and again on the
second, because the first time she had been out of breath and could not be sure. On the third day
the carpenter came, looked up the stairwell, and put his tools down. "You will want a winch," he
said.

"I will want a bed first. How much would a winch cost?"

"More than the bed. Less than my knees."

Light is a wave and also a particle, and lighthouses were built long before anybody knew either. In
1822 the French engineer Augustin Fresnel showed that a lens could be cut into rings, each of which
bends the light of a single lamp towards the horizon. A lens that would have weighed many tonnes as
one piece of glass became a frame of thin prisms, and the beam could be seen more than thirty
kilometres away. The same idea is used today in car headlamps, overhead projectors and solar ovens.
The focal length f of a thin lens, the distance u of the object and the distance v of its image
satisfy 1/f = 1/u + 1/v; with u = 30 cm and f = 10 cm, the image is at v = 15 cm, upside down and
half the size.

To boil an egg: bring a pot of water to the boil, lower the egg into it with a spoon, and wait six
minutes for a soft yolk or ten for a hard one. Then put it into cold water, so that it does not go
on cooking and the shell comes off more easily. At 3,000 metres above the sea water boils at about
90 degrees, and the same egg takes longer. Salt in the water changes almost nothing, whatever your
grandmother told you.

def moving_average(values, width):
    """Return the mean of each run of `width` neighbouring values."""
    if width < 1:
        raise ValueError(f"width must be at least 1, not {width}")
    total = sum(values[:width])
    means = [total / width]
    for old, new in zip(values, values[width:]):
        total += new - old
        means.append(total / width)
    return means

print(moving_average([3, 5, 7, 9, 11], 3))  # [5.0, 7.0, 9.0]

Dear Mr Okafor,

Thank you for your letter of 14 March. We are sorry that the clock you ordered arrived without its
pendulum. A replacement was sent this morning and should reach you within three working days. You do
not need to return anything. If the clock still runs slow once the pendulum is in place, please turn
the small nut below the weight to the right: one full turn makes it gain about half a minute a day.

Yours sincerely,
Helen Brandt

Q: A train leaves at 9:40 and arrives at 13:05. How long does the journey take?
A: From 9:40 to 13:00 is three hours and twenty minutes, and five minutes more make it three hours and
twenty-five minutes.

Q: Which of these is not a prime number: 17, 23, 51, 61?
A: 51, because it is 3 times 17.

Der Zug nach Hamburg hat heute leider zwanzig Minuten Verspätung. Bitte achten Sie auf die
Durchsagen am Bahnsteig. Le train de nuit est complet, mais il reste quelques places demain matin.
El mercado abre a las ocho y cierra cuando ya no queda pan.

The committee met four times between January and June. It heard from the owners of small boats, who
wanted the light back, and from the owners of large ones, who had satellite navigation and did not
care. It heard from a biologist, who explained that migrating birds steer by the stars and are drawn
off their course by bright lamps in fog. In the end it recommended that the lamp be lit again, but
only from November to February, only when the air was clear, and only if somebody could be found who
would climb the stairs. Marta read the report at her kitchen table, one hundred and sixty-two steps
up, while the rain went sideways past the windows. She turned to the last page, where the signatures
were, and laughed. Nobody had asked her yet. She already had the matches.
'''
"""Prose, dialogue, physics, a recipe, code, a letter, questions, three languages; written for this."""
