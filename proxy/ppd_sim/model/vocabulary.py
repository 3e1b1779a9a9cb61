"""The words simulated answers are made of: short ones, so that every word is one token."""

from __future__ import annotations

from typing import Final

# A prime number of them: any start and any step walks through distinct candidates.
WORDS: Final = tuple(
    """
    the of and to in is it that for was on are as with his they at be this have from or one had by word but not
    what all were we when your can said use an each she do how if will up way many then them so some her make
    like him into time has look two more go see no my than been who its now find long down day did get come made
    may part over new take only work know year live me back give most very just name good man say well also play
    end put home read hand port even land here must big high such act why ask men went kind need try us move far
    off own old tell boy came want show form set near head left late page life few open next hard seem both mark
    book got walk city tree eat face door cut talk song body dog real leaf food wind room fish lake rain star
    snow moon gold blue warm cold soft slow fast deep wide rich calm true wise keep hold turn grow sing rise
    fall pass seek sand wave hill road ship salt fire iron wool silk drum bell coin lamp seed root vine
    """.split()
)
