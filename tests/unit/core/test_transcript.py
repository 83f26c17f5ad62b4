"""Transcripts: what was told last goes into a text and comes out of it."""

import pytest

from registry.core.digest import Digest
from registry.core.events import Advance, Count, Done, Event, Status, Transfer
from registry.core.transcript import Transcript

ONE, OTHER = Digest.of(b"1"), Digest.of(b"2")
EVERY: list[Event] = [
    Status("collecting"),
    Transfer("importing", ONE, 10, 4),
    Advance("checking", ONE, 10, 5),
    Count("uploads", 3, 99),
    Done(),
]


def told(transcript: Transcript, number: int = 0) -> list[Event]:
    return [event for _, event in transcript.since(number)]


def test_every_event_comes_back_as_it_was() -> None:
    transcript = Transcript("r1", "half way")
    for event in EVERY:
        transcript.add(event)
    read = Transcript.parse(transcript.text)
    assert told(read) == EVERY
    assert (read.run, read.mark) == ("r1", "half way")
    assert read.since(0) == transcript.since(0)


def test_who_has_heard_some_gets_the_rest() -> None:
    transcript = Transcript()
    for event in EVERY:
        transcript.add(event)
    assert transcript.since(3) == [(4, EVERY[3]), (5, EVERY[4])]
    assert told(transcript, 5) == []


def test_of_one_thing_the_last_word_counts() -> None:
    transcript = Transcript()
    for event in (
        Count("uploads", 1, 1),
        Transfer("importing", ONE, 10, 4),
        Transfer("importing", OTHER, 10, 1),
        Status("a"),
        Transfer("importing", ONE, 10, 9),
        Count("uploads", 2, 5),
        Status("a"),
    ):
        transcript.add(event)
    assert told(Transcript.parse(transcript.text)) == [
        Transfer("importing", OTHER, 10, 1),
        Status("a"),
        Transfer("importing", ONE, 10, 9),
        Count("uploads", 2, 5),
        Status("a"),
    ]


def test_it_stays_short_whatever_is_told() -> None:
    transcript = Transcript()
    for number in range(1000):
        transcript.add(Status(f"{number} " + "x" * 5000))
    read = Transcript.parse(transcript.text)
    assert len(transcript.text) < 20_000
    assert [number for number, _ in read.since(0)] == list(range(969, 1001))
    read.add(Status("one more"))
    assert read.since(1000) == [(1001, Status("one more"))]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "F16",
        "[]",
        "{}",
        '["r","m",[[1,"song"]]]',
        '["r","m",[[1,"advance","x","sha256:0",1,1]]]',
    ],
)
def test_of_another_text_nothing_was_told(text: str) -> None:
    read = Transcript.parse(text)
    assert (read.run, read.mark, read.since(0)) == ("", "", [])
