"""Shows what can be told from what the ranks of a node are doing, without any rank."""

from hypothesis import given
from hypothesis import strategies as st

from dptrain.board import LENGTH, Board, Line, State, apart, late, never, steady

LINES = [
    Line(
        rank, 100 + rank, "vm", number=7, beats=3, site=1, state=State.INSIDE, alive=5, doing="fit"
    )
    for rank in range(3)
]


def test_each_rank_writes_its_line_and_reads_all() -> None:
    memory = memoryview(bytearray(2 * LENGTH))
    boards = [Board(memory, range(4, 6), rank) for rank in (4, 5)]
    boards[0].set(State.INSIDE, "dptrain train é" + 300 * "x")
    assert [boards[0].arrive(17), boards[0].arrive(18)] == [1, 2]
    boards[0].beat()
    boards[1].tick()
    first, second = boards[1].lines()
    assert first == boards[0].line
    assert (first.rank, first.number, first.beats, first.site, first.alive) == (4, 2, 1, 18, 0)
    assert first.doing.startswith("dptrain train é")
    assert len(first.doing) < LENGTH
    assert (second.rank, second.state, second.alive) == (5, State.OUTSIDE, 1)


def test_a_line_says_where_its_rank_is() -> None:
    where = {state: str(LINES[1]._replace(state=state)) for state in State}
    assert where[State.INSIDE] == where[State.EXCUSED] == "rank 1 is in fit"
    assert where[State.ENDED] == "rank 1 has ended"
    assert where[State.OUTSIDE] == "rank 1 is in no call of dptrain"


def test_who_makes_another_call_is_told_first_and_in_full() -> None:
    assert apart(["fit", "load"]).startswith("rank 1 is in load, rank 0 and all others are in fit:")
    long = f"train {'x' * 300} --epochs two"
    many = apart([*["train"] * 70, long, *["train"] * 70])
    assert many.startswith(f"rank 70 is in {long}, rank 0 and all others are in train:")
    assert ", rank 8 is in 8, 991 more ranks likewise, rank 0 " in apart([*map(str, range(1000))])


def test_the_first_that_claims_says_why_all_end() -> None:
    memory = memoryview(bytearray(3 * LENGTH))
    boards = [Board(memory, range(3), rank) for rank in range(3)]
    assert not boards[0].over
    assert boards[2].claim(0)
    assert boards[1].claim(0)
    assert not boards[2].claim(0)
    assert boards[0].over


def test_a_rank_waits_for_ever_only_for_one_that_has_ended_or_is_elsewhere() -> None:
    ended = LINES[1]._replace(state=State.ENDED, number=6)
    assert never(LINES, LINES, 0) is None
    assert never([LINES[0], ended], [LINES[0], ended], 0) == "rank 0 is in fit, rank 1 has ended"
    moved = [LINES[0]._replace(beats=2), ended]
    assert never(moved, [LINES[0], ended], 0) is None  # it has done a step meanwhile
    took_part = [LINES[0], ended._replace(number=7)]
    assert never(took_part, took_part, 0) is None  # and has left sooner
    elsewhere = [LINES[0], LINES[1]._replace(site=2, doing="load")]
    assert "rank 0 is in fit, rank 1 is in load: every rank" in str(never(elsewhere, elsewhere, 0))
    excused = [LINES[0]._replace(state=State.EXCUSED), ended]
    assert never(excused, excused, 0) is None  # it waits for a disk, not for a rank
    assert never([ended], [ended], 1) is None


def test_late_ranks_are_named_by_those_that_wait_in_front() -> None:
    now = [line._replace(alive=9) for line in LINES]
    behind = [now[0], now[1], now[2]._replace(beats=2)]
    found = "rank 2 (process 102 on vm): is in fit, not at the point where the others wait"
    assert late(LINES, behind, 0) == found
    assert late(LINES, behind, 2) is None  # it is itself the one
    assert late(LINES, now, 0) is None
    asleep = [*behind[:2], behind[2]._replace(alive=5)]
    assert late(LINES, asleep, 1) == "rank 2 (process 102 on vm): no answer"
    slow_disk = [now[0], now[1]._replace(state=State.EXCUSED), behind[2]]
    assert late(LINES, slow_disk, 0) is None
    frozen = [now[0], now[1], behind[2]._replace(state=State.EXCUSED, alive=5)]
    assert late(LINES, frozen, 0) == "rank 2 (process 102 on vm): no answer"
    for beats in (3, 4):  # frozen as it waits with the others, and as it went on
        frozen = [now[0], now[1], LINES[2]._replace(beats=beats)]
        assert late(LINES, frozen, 0) == "rank 2 (process 102 on vm): no answer"
    many = [*now, *(behind[2]._replace(rank=rank) for rank in range(3, 1000))]
    assert str(late(many, many, 0)).endswith("; 992 more ranks likewise")
    ended = LINES[2]._replace(state=State.ENDED)
    assert late([*LINES[:2], ended], [now[0], now[1], ended], 0) is None


@given(st.lists(st.sampled_from([6, 7, 8]), min_size=2, max_size=5))
def test_no_rank_that_moves_or_has_taken_part_is_at_fault(numbers: list[int]) -> None:
    now = [LINES[0]._replace(rank=rank, number=number) for rank, number in enumerate(numbers)]
    assert [line.rank for line in steady(now, now)] == [*range(len(now))]
    assert not steady([line._replace(beats=0) for line in now], now)
    for rank in range(len(now)):
        assert never(now, now, rank) is None
