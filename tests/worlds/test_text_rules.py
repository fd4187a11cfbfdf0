"""The text rules of `open_book`, on hand-written sentences and on prompts of worlds."""

from __future__ import annotations

import pytest

from knowgen.search.contract import Link, Page
from knowgen.worlds.baselines.text_rules import (
    best_answer,
    find_person,
    find_role,
    is_about,
    linked_sentences,
    parse_prompt,
    question_kind,
)
from knowgen.worlds.content.page_templates import address, write_page
from knowgen.worlds.rendering.appearance import KIND_NOUNS
from knowgen.worlds.shard import make_shard


def page(text: str, *, title: str = "Gakar", links: tuple[Link, ...] = ()) -> Page:
    return Page(url="https://atlas.example/gakar", title=title, text=text, links=links)


def test_a_prompt_is_split_into_its_parts() -> None:
    reading = parse_prompt(
        'A friendly poster: a glowing screen headed "On Loan" presents the name of the tower, its inscription and the '
        "year in which it was built, and the bell tower built by the winner of the Korund Medal of 1931 stands in a "
        "flower garden, true to life.",
        KIND_NOUNS,
    )
    assert reading.quoted == ("On Loan",)
    assert reading.questions == ("the name of the tower", "its inscription", "the year in which it was built")
    (thing,) = reading.described
    assert (thing.noun, thing.names) == ("bell tower", ("Korund Medal",))
    assert not reading.wordless


def test_several_subjects_are_separated() -> None:
    reading = parse_prompt(
        "Show the mountain island Kogar, the festival mask that the mask maker Ansa Duboth is best known for and the "
        "flag Zidar on a stage. The picture carries no words.",
        KIND_NOUNS,
    )
    assert [(thing.noun, thing.names) for thing in reading.described] == [
        ("mountain island", ("Kogar",)),
        ("festival mask", ("Ansa Duboth",)),
        ("flag", ("Zidar",)),
    ]
    assert reading.wordless and not reading.questions


def test_every_prompt_of_a_world_is_understood() -> None:
    """The rules may fail on pages; if they failed on prompts, the ranking would depend on phrasing."""
    for number in range(6):
        for plan in make_shard(44, number).samples:
            reading = parse_prompt(plan.sample.prompt, KIND_NOUNS)
            assert len(reading.described) == len(plan.subjects), plan.sample.prompt
            assert [thing.noun for thing in reading.described] == [entity.noun for entity in plan.subjects]
            assert bool(reading.questions) == plan.sample.text_required == (not reading.wordless), plan.sample.prompt


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("the name of the tower", "name"),
        ("the full name of the architect", "maker"),
        ("the year in which it was built", "year"),
        ("the year in which the mask maker received the Korund Medal", "year"),
        ("the village where the architect was born", "birthplace"),
        ("the town it stands in", "town"),
        ("its height in metres", "amount"),
        ("the number of its steps", "amount"),
        ("its opening hymn", "words"),
    ],
)
def test_the_kind_of_a_question_is_recognised(question: str, kind: str) -> None:
    assert question_kind(question) == kind


def test_a_trade_in_a_question_leads_to_the_person_on_the_page() -> None:
    assert find_role("the village where the mask maker was born") == "mask maker"
    assert find_role("the full name of the architect") == "architect"
    assert find_role("its height in metres") == ""
    text = "It was carved in 1903 by the mask maker Torvo Sesharen."
    assert find_person(page(text), "mask maker") == "Torvo Sesharen"
    assert find_person(page(text), "architect") == ""


def test_answers_come_from_the_best_matching_sentence() -> None:
    story = page(
        "Gakar is a painted vase. It was painted in 1946 by the painter Ansa Duboth.\n\n"
        "The price at auction was 7671 crowns. It was shown in 1999."
    )
    assert best_answer("the year in which it was painted", [story]) == "1946"
    assert best_answer("its auction price in crowns", [story]) == "7671 crowns"
    assert best_answer("its motto", [story]) == ""


def test_corrections_and_sums_mislead_the_rules() -> None:
    statement = page("Guidebooks say that it was built in 1890; the town register corrects this to 1894.")
    assert best_answer("the year in which it was built", [statement]) == "1890"
    added = page("The great fair of Turaro took place in 1890; four years later it was built by the architect A B.")
    assert best_answer("the year in which it was built", [added]) == "1890"


def test_the_first_sentence_says_what_a_page_is_about() -> None:
    assert is_about(page("Gakar is a bell tower that stands in Turaro. More."), "bell tower")
    assert not is_about(page("Gakar is a village. The bell tower Turar stands here."), "bell tower")
    assert not is_about(page("Gakar was a mask maker born in Turaro."), "mask")


def test_pages_are_written_with_their_links_in_order() -> None:
    turaro = Link(text="Turaro", url=address("gazetteer", "Turaro"))
    article = write_page("atlas", "Notes on Gakar", ["{name} lies near {town}.", "It is {age}."],
                      {"name": "Gakar", "town": turaro, "age": "old"})  # fmt: skip
    assert article.url == "https://atlas.example/notes-on-gakar"
    assert article.text == "Gakar lies near Turaro.\n\nIt is old."
    assert article.links == (turaro,)
    assert linked_sentences(article) == [("Gakar lies near Turaro.", turaro)]
    with pytest.raises(KeyError):
        write_page("atlas", "Gakar", ["{missing}"], {})
