"""The phrasings of every instruction: those to learn from, and those kept for testing alone.

No phrasing holds a joint by which `train.vla.language.instructions` joins two: " and ", a comma, ...
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Phrasings:
    """Ways to say one thing."""

    learnt: tuple[str, ...]
    kept: tuple[str, ...]
    """No policy is trained with these."""


SPEED_PHRASES = {
    "stop": Phrasings(
        learnt=(
            "stop",
            "stop the car",
            "come to a stop",
            "hit the brakes until we stand",
            "bring the car to a halt",
            "do not move",
            "hold the car still",
            "stand still here",
            "brake to zero",
            "pull up right here",
            "let us wait here without moving",
        ),
        kept=(
            "come to a complete standstill",
            "halt",
            "stop driving now",
            "park it right where we are",
        ),
    ),
    "crawl": Phrasings(
        learnt=(
            "crawl",
            "crawl along",
            "creep forward",
            "go at walking pace",
            "roll along as slowly as you can",
            "inch along the road",
            "drive at a snail's pace",
            "barely move forward",
            "drive extremely slowly",
            "go dead slow",
            "very slowly",
            "just keep it rolling very gently",
        ),
        kept=(
            "move along at a crawl",
            "creep along no faster than a pedestrian",
            "drive very very slowly",
            "inch forward",
        ),
    ),
    "slow": Phrasings(
        learnt=(
            "drive slowly",
            "take it easy",
            "slow",
            "slowly",
            "go slow",
            "slow down",
            "no need to hurry",
            "take your time",
            "keep the speed low",
            "drive at a gentle pace",
            "drive like you have all day",
            "cruise along quietly",
            "go easy on the gas",
        ),
        kept=(
            "drive at a leisurely pace",
            "keep it slow",
            "there is no rush",
            "drive calmly at low speed",
        ),
    ),
    "brisk": Phrasings(
        learnt=(
            "drive briskly",
            "quickly",
            "keep a brisk pace",
            "go at a good pace",
            "pick up the pace a bit",
            "drive at a lively speed",
            "keep moving along nicely",
            "go fairly quickly",
            "hurry up",
            "make good progress",
            "drive swiftly without racing",
            "keep up a decent speed",
            "drive with some purpose",
        ),
        kept=(
            "go at a brisk clip",
            "drive quite quickly",
            "keep up a lively pace",
            "make steady quick progress",
        ),
    ),
    "fast": Phrasings(
        learnt=(
            "drive as fast as possible",
            "as fast as possible",
            "fast",
            "go flat out",
            "full speed ahead",
            "floor it",
            "race",
            "drive as fast as you can",
            "push the car to its limit",
            "set the best lap time you can",
            "give it everything",
            "drive like you are in a race",
        ),
        kept=(
            "go at top speed",
            "go as quickly as you possibly can",
            "put your foot down all the way",
            "race at maximum speed",
        ),
    ),
}

PLACE_PHRASES = {
    "left": Phrasings(
        learnt=(
            "stay on the left",
            "keep to the left side of the road",
            "keep left",
            "hug the left edge",
            "drive on the left side",
            "on the left side",
            "use the left half of the road",
            "stay close to the left edge of the road",
            "move over to the left side",
            "remain on the left hand side",
            "leave room on the right side",
            "drive along the left border",
        ),
        kept=(
            "stick to the left side",
            "keep over to the left of the road",
            "stay near the left hand edge",
            "hold to the left half",
        ),
    ),
    "centre": Phrasings(
        learnt=(
            "stay in the middle",
            "keep to the middle of the road",
            "drive in the centre",
            "in the middle",
            "stay centred",
            "keep the car in the middle of the road",
            "follow the centre line",
            "stay away from both edges",
            "drive right down the middle",
            "keep an equal distance from both sides",
            "use the middle of the road",
            "hold the centre of the road",
        ),
        kept=(
            "stick to the middle",
            "remain in the centre of the road",
            "keep the car centred between the edges",
            "drive along the centre line",
        ),
    ),
    "right": Phrasings(
        learnt=(
            "stay on the right",
            "keep to the right side of the road",
            "keep right",
            "hug the right edge",
            "drive on the right side",
            "on the right side",
            "use the right half of the road",
            "stay close to the right edge of the road",
            "move over to the right side",
            "remain on the right hand side",
            "leave room on the left side",
            "drive along the right border",
        ),
        kept=(
            "stick to the right side",
            "keep over to the right of the road",
            "stay near the right hand edge",
            "hold to the right half",
        ),
    ),
}

MANOEUVRE_PHRASES = {
    "left": Phrasings(
        learnt=(
            "turn left",
            "turn left at the junction",
            "take the next left",
            "take a left turn",
            "make a left at the crossing",
            "go left at the intersection",
            "turn into the road on the left",
            "take the road to the left",
            "at the junction go left",
            "make a left turn ahead",
            "at the next crossroads turn left",
        ),
        kept=(
            "hang a left",
            "turn left at the next intersection",
            "at the crossing take the left road",
            "do a left turn at the junction ahead",
        ),
    ),
    "right": Phrasings(
        learnt=(
            "turn right",
            "turn right at the junction",
            "take the next right",
            "take a right turn",
            "make a right at the crossing",
            "go right at the intersection",
            "turn into the road on the right",
            "take the road to the right",
            "at the junction go right",
            "make a right turn ahead",
            "at the next crossroads turn right",
        ),
        kept=(
            "hang a right",
            "turn right at the next intersection",
            "at the crossing take the right road",
            "do a right turn at the junction ahead",
        ),
    ),
    "straight": Phrasings(
        learnt=(
            "go straight",
            "go straight on at the junction",
            "drive straight ahead at the crossing",
            "continue straight",
            "go straight across the intersection",
            "cross the junction without turning",
            "do not turn at the junction",
            "head straight over the crossroads",
            "at the next junction carry straight on",
            "ignore the turnings",
            "stay on this road at the junction",
        ),
        kept=(
            "keep going straight ahead",
            "go straight over the next intersection",
            "carry straight on at the crossing",
            "take no turn at the crossroads",
        ),
    ),
    "change": Phrasings(
        learnt=(
            "change lanes",
            "change lane",
            "move into the next lane",
            "switch to the other lane",
            "make a lane change",
            "take the neighbouring lane",
            "pull over into the adjacent lane",
            "get into the other lane",
            "cross over into the lane beside us",
            "leave this lane for the next one",
            "merge into the lane next to ours",
        ),
        kept=(
            "swap lanes",
            "switch lanes",
            "go over into the lane next to this one",
            "perform a lane change",
        ),
    ),
}
