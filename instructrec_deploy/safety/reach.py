"""How far rules read beside what they find, in characters of the folded text.

Recognizers look no further than this, and a stream (streaming.py) holds back and keeps by it.
"""

from __future__ import annotations

NAME_BEFORE = 48  # a word that names a value, before it ...
NAME_AFTER = 16  # ... and behind it: "943 476 5919 (NHS)"
PHONE_WORDS = 32  # words before a number that say what kind it is
QUOTE = 60  # quotation marks around a hit, to each side
PLACE_NAME = 40  # a Chinese address from the province down to the road
MAIL_NAME = 65  # before the "@": one more than may stand there
MAIL_DOTS = 80  # behind a spelled-out "@": the dots of its domain
PEM = 16_384  # from the head of a private key to its end
# Characters of a spelled-out value that stand for one of it: "three, " is a 3.
SPELLED = 8
# What a stream keeps of the text that has gone: as far as any rule reads before its match.
CONTEXT = SPELLED * max(NAME_BEFORE, PHONE_WORDS, QUOTE, PLACE_NAME, MAIL_NAME)
# What a stream holds at most; longer than any key or link. What is undecided for longer, such as
# a line of nothing but digits, counts as a check that broke.
HOLD = 2 * PEM
