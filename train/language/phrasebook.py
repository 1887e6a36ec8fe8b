"""The phrasings of every instruction: those to learn from, and those kept for testing alone.

No phrasing holds a joint by which `train.language.instructions` joins two (" and ", a comma, ...), or
begins with the end of one, "please".
Most of those to learn from were written without sight of those that are kept; phrasings in both were kept,
and no longer part of a kept one is learnt.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Phrasings:
    """Ways to say one thing."""

    learnt: tuple[str, ...]
    kept: tuple[str, ...]
    """No policy is trained with these."""


def _ways(learnt: str, kept: str) -> Phrasings:
    """Phrasings out of texts that a semicolon parts."""
    one, other = (tuple(" ".join(way.split()) for way in text.split(";")) for text in (learnt, kept))
    return Phrasings(one, other)


SPEED_PHRASES = {
    "stop": _ways(
        """
        stop; stop the car; come to a stop; hit the brakes until we stand; bring the car to a halt; do not
        move; hold the car still; stand still here; brake to zero; pull up right here; let us wait here
        without moving; whoa; stop here please; slam on the brakes; stop right now please; come to a complete
        stop; would you stop the car please; could you come to a standstill; hold it right there; freeze; park
        it right here; don't move another inch; stay put; stop dead; stop immediately; i need you to stop this
        instant; kindly bring the vehicle to rest; we need to stop now; brake to a full stop; not one metre
        further; let me out here; stand on the brakes; stop where you are; come to rest at once; pull over
        here please; don't go any further; jam the brakes on; stop moving; make a full stop here please; halt
        the vehicle at once; this is where we stop; quit driving this minute; stop for heaven's sake; no more
        rolling just stop; wait right here please; bring her to a standstill; emergency stop; stand still
        please; drop anchor right here; zero speed please
        """,
        """
        come to a complete standstill; halt; stop driving now; park it right where we are
        """,
    ),
    "crawl": _ways(
        """
        crawl; crawl along; creep forward; go at walking pace; roll along as slowly as you can; inch along the
        road; drive at a snail's pace; barely move forward; drive extremely slowly; go dead slow; very slowly;
        just keep it rolling very gently; creep along; walking pace please; go at walking speed; crawl along
        like a snail; let it roll as slowly as it can; at a snail's pace please; creep forward ever so slowly;
        barely move; inch your way along; go no faster than a person walks; drive so slowly i could walk
        beside you; as slow as you can without stopping; keep to a crawl; tiptoe forward; slow to a crawl;
        roll forward at a walk; let the car creep; could you creep along at walking pace; we should hardly be
        moving; move like a tortoise; proceed at a walking pace if you would; the slowest crawl you can
        manage; the slowest speed this car can do; dead slow please; just inch along; let her trickle forward;
        let it idle along in first gear; walk the car along; a pedestrian should be able to overtake us; nudge
        it forward bit by bit; edge forward by inches; just a creep please; keep level with the pedestrians no
        faster; match the pace of someone strolling; minimum possible speed please; move along at a bare
        crawl; slug speed; the bare minimum speed without coming to a halt; roll along barely above
        standstill; i want us to crawl; no quicker than a toddler can walk; would you mind crawling along
        here; ultra slow almost stationary
        """,
        """
        move along at a crawl; creep along no faster than a pedestrian; drive very very slowly; inch forward
        """,
    ),
    "slow": _ways(
        """
        drive slowly; take it easy; slow; slowly; go slow; slow down; no need to hurry; take your time; keep
        the speed low; drive at a gentle pace; drive like you have all day; cruise along quietly; go easy on
        the gas; slowly please; no rush; there's no hurry; easy does it; slow down a bit; nice relaxed drive
        please; leisurely; at a leisurely pace please; just cruise along gently; sunday drive speed; just
        potter along; mosey along; we've got all day; we have plenty of time; ease off a little; could you
        drive a bit slower please; gently does it; steady on driver; less speed please; i'm in no hurry at
        all; reduce your speed please; drive like you're on holiday; no need to hurry today; kindly proceed at
        an unhurried pace; cool it a bit; calm down with the speed; back off the gas some; let's enjoy the
        scenery; take it slow; drive like there's a sleeping baby in the back; easy on the pedal; chill out a
        bit up there; keep the speed down please; a gentle unhurried drive would be lovely; like a sunday
        driver; slower than usual please; lift off the throttle a little; we can afford to go slowly; don't
        rush; drive the way my grandma would; just tootle along calmly
        """,
        """
        drive at a leisurely pace; keep it slow; there is no rush; drive calmly at low speed
        """,
    ),
    "brisk": _ways(
        """
        drive briskly; quickly; keep a brisk pace; go at a good pace; pick up the pace a bit; drive at a
        lively speed; keep moving along nicely; go fairly quickly; hurry up; make good progress; drive swiftly
        without racing; keep up a decent speed; drive with some purpose; briskly please; a bit faster please;
        pick up the pace; step lively; get a move on; hurry up a little; drive quickly; a lively pace please;
        keep it moving smartly; let's make good time; speed up somewhat; a touch quicker please; go a little
        quicker than usual; faster than normal without going crazy; look sharp; chop chop; could you go a bit
        quicker; at a good clip; make brisk progress; put a bit of speed on; give it a bit more gas; a
        spirited drive please; nip along; zip along nicely; we're running a little late; hustle a bit; don't
        dawdle; a swift pace without racing; rather quickly if you please; get along at a fair lick; make it
        snappy; slightly faster than you normally would; shake a leg; i'm in a bit of a hurry; would you
        kindly drive somewhat faster; crack on at a good pace; drive with some zip; keep up a healthy speed;
        step it up a notch; be quick about it; quicken the pace a little; a brisk drive would suit me; a
        little more pep please; speedy within reason; press on sharpish
        """,
        """
        go at a brisk clip; drive quite quickly; keep up a lively pace; make steady quick progress
        """,
    ),
    "fast": _ways(
        """
        drive as fast as possible; as fast as possible; fast; go flat out; full speed ahead; floor it; race;
        drive as fast as you can; push the car to its limit; set the best lap time you can; give it
        everything; drive like you are in a race; flat out; full speed; full throttle; pedal to the metal; as
        fast as you can; as fast as this car will go; top speed please; put your foot to the floor; drive like
        you stole it; gun it; drive like a maniac; go like the wind; all out; full steam ahead; max it out;
        drive like the devil is after us; give it everything it's got; go hell for leather; go like a bat out
        of hell; burn rubber; drive for your life; warp speed; like a rocket; hold nothing back; drive like a
        racing driver; go at breakneck speed; as quickly as the car can possibly travel; faster than you've
        ever driven; wide open throttle; hammer down; let it rip; pretend this is a grand prix; i want every
        bit of speed she has; drive at the greatest possible speed please; it's life or death so drive flat
        out; bury the needle; open her up all the way; race as if we had to win; go like the clappers;
        lightning speed
        """,
        """
        go at top speed; go as quickly as you possibly can; put your foot down all the way; race at maximum
        speed
        """,
    ),
}

PLACE_PHRASES = {
    "left": _ways(
        """
        stay on the left; keep to the left side of the road; keep left; hug the left edge; drive on the left
        side; on the left side; use the left half of the road; stay close to the left edge of the road; move
        over to the left side; remain on the left hand side; leave room on the right side; drive along the
        left border; keep to the left; stay on the left side of the road; stick to the left please; left side
        please; drive along the left edge; hold the left; stay over on the left hand side; hug the left kerb;
        keep near the left verge; stay close to the left shoulder; favour the left side; use the left part of
        the road; would you keep to the left side please; remain on the left; left of the road please; be on
        the left; shift over to the left side; ride the left edge; drive on the left; stay well over to the
        left; keep the car on the left half; cling to the left border; kindly stay towards the left; run along
        the left margin; keep us over on the left; i'd like us on the left side; leave the whole right half
        free; stay left of the middle; keep left of centre; travel down the left side; left hand side of the
        road; scoot over to the left edge; tuck in on the left; stay glued to the left side; follow the left
        edge line; position yourself on the left; maintain a position on the left please; drive by the left
        hand kerb; stay in the left third of the road; stick with the left hand part; squeeze over to the left
        """,
        """
        stick to the left side; keep over to the left of the road; stay near the left hand edge; hold to the
        left half
        """,
    ),
    "centre": _ways(
        """
        stay in the middle; keep to the middle of the road; drive in the centre; in the middle; stay centred;
        keep the car in the middle of the road; follow the centre line; stay away from both edges; drive right
        down the middle; keep an equal distance from both sides; use the middle of the road; hold the centre
        of the road; keep to the middle; stay in the centre; middle of the road please; hold the centre; drive
        down the middle; stay central; keep dead centre; straddle the centre line; smack in the middle; stay
        in the center of the road; centre; middle please; take the middle; halfway between the two edges;
        neither left nor right stay in the middle; same distance from both sides; keep off both edges; slap
        bang in the middle; stick to the center; run along the central line; equal room on either side please;
        steer along the road's midline; smack dab in the middle; stay midway across the road; drive on the
        crown of the road; remain centered please; would you stay in the middle please; keep us in the middle
        part; the middle third of the road; put the car bang in the centre; kindly maintain a central
        position; split the road down the middle; hug the centre line; dead center all the way; stay away from
        either side; get back to the middle of the road; position yourself centrally; stay between the two
        sides; leave as much room left as right; i'd like us in the center; own the middle of the road;
        balance us between both kerbs; down the centre
        """,
        """
        stick to the middle; remain in the centre of the road; keep the car centred between the edges; drive
        along the centre line
        """,
    ),
    "right": _ways(
        """
        stay on the right; keep to the right side of the road; keep right; hug the right edge; drive on the
        right side; on the right side; use the right half of the road; stay close to the right edge of the
        road; move over to the right side; remain on the right hand side; leave room on the left side; drive
        along the right border; keep to the right; right side please; stay on the right hand side; drive on
        the right; drive along the right hand edge; stay near the right kerb; hug the right curb; keep close
        to the right verge; hold to the right side of the road; remain on the right please; could you keep
        over to the right; tuck in to the right; stay well to the right; cling to the right side; keep the car
        on the right; we belong on the right side; kindly keep towards the right hand side; favor the right
        side; run close to the right shoulder; stay right of centre; keep right of the middle; leave the whole
        left half free; ride along the right border; follow the right edge of the road; over on the right
        please; travel on the right hand part; stay pinned to the right edge; occupy the right part of the
        road; i'd rather be on the right side; put us on the right hand side; the right third of the road
        please; slide over to the right edge; stay far right; over by the right hand roadside please; let's
        stick with the right side; take up a position on the right; keep your wheels by the right edge; right
        half of the road please; squeeze up against the right kerb
        """,
        """
        stick to the right side; keep over to the right of the road; stay near the right hand edge; hold to
        the right half
        """,
    ),
}

MANOEUVRE_PHRASES = {
    "left": _ways(
        """
        turn left; turn left at the junction; take the next left; take a left turn; make a left at the
        crossing; go left at the intersection; turn into the road on the left; take the road to the left; at
        the junction go left; make a left turn ahead; at the next crossroads turn left; left turn ahead; take
        a left; make a left; go left at the junction; next left please; left at the intersection; left at the
        crossroads; could you turn left up ahead; make a left hand turn; take the road on the left; turn off
        to the left; swing left at the corner; left at the lights; take the first left; bear left at the
        junction; we're turning left here; head left at the next crossing; go round the corner to the left;
        make the next left please; left here; we want the turning on the left; i need you to go left ahead;
        peel off left; chuck a left; turn the car left at the corner; kindly turn left at the next
        opportunity; next street on the left; hook a left; bang a left; our way is left at the fork; cut left
        at the intersection; it's a left coming up; veer left into the side street; follow the road that goes
        off left; at the crossroads take the left branch; would you mind taking the left turn; branch off to
        the left; left into the next street; down the street to our left please; the next corner is a left; we
        go left at the crossing
        """,
        """
        hang a left; turn left at the next intersection; at the crossing take the left road; do a left turn at
        the junction ahead
        """,
    ),
    "right": _ways(
        """
        turn right; turn right at the junction; take the next right; take a right turn; make a right at the
        crossing; go right at the intersection; turn into the road on the right; take the road to the right;
        at the junction go right; make a right turn ahead; at the next crossroads turn right; right turn
        please; take a right; make a right; go right at the next junction; next right; take the next right
        please; right at the intersection; right at the crossroads; right at the traffic lights; would you
        turn right at the corner; make a right hand turn; take the turning on the right; turn off to the
        right; swing right at the crossing; take the first right; bear right at the fork; we need to turn
        right here; head right at the intersection; round the corner to the right; turn right when you can
        please; the next road on the right; you want the right turn up ahead; i'd like you to turn right; peel
        off to the right; chuck a right; hook a right; steer right at the junction; kindly take the right
        turning; at the corner go right; first street on the right please; bang a right up here; the way is to
        the right at the crossroads; cut right at the corner; there's a right coming up take it; veer off
        right at the junction; follow the side road to the right; at the intersection take the right branch;
        could you make a right up there; fork off to the right; turn right into the next street; down the road
        to our right; the junction ahead is a right for us; we turn right at the lights
        """,
        """
        hang a right; turn right at the next intersection; at the crossing take the right road; do a right
        turn at the junction ahead
        """,
    ),
    "straight": _ways(
        """
        go straight; go straight on at the junction; drive straight ahead at the crossing; continue straight;
        go straight across the intersection; cross the junction without turning; do not turn at the junction;
        head straight over the crossroads; at the next junction carry straight on; ignore the turnings; stay
        on this road at the junction; straight on; carry on straight ahead; don't turn; straight through the
        junction; straight over at the crossroads; no turning here; drive through the intersection; stay on
        this road; keep to the same road; directly ahead please; don't take any turns; just keep straight; go
        across the junction; carry on past the turning; straight as an arrow; follow the road ahead; head on
        through the crossing; proceed directly ahead at the intersection; neither left nor right just ahead;
        keep on this street; skip the next turning; forward at the lights; onward through the crossroads; pass
        through without turning; continue along this road please; follow your nose; drive on over the
        intersection; proceed straight ahead please; no turn at the next junction; go past the side street;
        keep heading forward at the junction; leave that turn alone; continue in the same direction; could you
        go straight across; dead ahead; hold your course at the crossing; don't turn off just carry on; we're
        not turning here; straight across the intersection
        """,
        """
        keep going straight ahead; go straight over the next intersection; carry straight on at the crossing;
        take no turn at the crossroads
        """,
    ),
    "change": _ways(
        """
        change lanes; change lane; move into the next lane; switch to the other lane; make a lane change; take
        the neighbouring lane; pull over into the adjacent lane; get into the other lane; cross over into the
        lane beside us; leave this lane for the next one; merge into the lane next to ours; take the other
        lane; move over a lane; lane change please; hop into the next lane; get in the other lane; go over to
        the neighbouring lane; shift one lane over; could you change lanes please; merge into the adjacent
        lane; use the lane next to us; slide over into the next lane; jump lanes; cross into the other lane;
        pull out into the other lane; move across to the adjoining lane; get out of this lane; we should be in
        the other lane; drift over to the next lane; let's try the lane beside us; pick the other lane; kindly
        execute a lane change; ease into the lane alongside; move to a different lane please; i'd prefer the
        lane beside this one; scoot over a lane; nip into the other lane; wrong lane please swap; go one lane
        across; transfer to the neighboring lane; pop over into the next lane; other lane please; time to
        change lane; duck into the adjacent lane; move into the lane alongside ours; cut over one lane; lane
        swap; trade this lane for the one beside it; would you mind switching lanes; abandon this lane for its
        neighbour; not this lane the other one; shuffle across one lane
        """,
        """
        swap lanes; switch lanes; go over into the lane next to this one; perform a lane change
        """,
    ),
}
