"""What dptrain's commands exit with: the one list of numbers that job scripts can rely on."""

DONE = 0
FAILED = 1
"""An error in a rank, silent ranks, or what `doctor`, `verify` or `explain --check` found."""
MISTAKE = 2
"""Of a person, who can mend it."""
DRIFTED = 70
"""Copies of the parameters differ (EX_SOFTWARE of sysexits.h)."""
UNWRITTEN = 74
"""Something could not be written (EX_IOERR)."""
SAVED = 75
"""Saved, to go on later (EX_TEMPFAIL)."""
CTRL_C = 130
