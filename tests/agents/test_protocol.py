"""The wire format: how replies are read, and every text that goes back, to the byte."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowgen.agents.protocol import (
    AnswerFormatError,
    CallFormatError,
    call_error,
    call_texts,
    cut_reply,
    escape_frames,
    escape_tags,
    has_answer,
    has_call,
    observation,
    parse_answer,
    parse_call,
    thought_of,
    tool_error,
    unknown_tool,
)

KNOWN = ("IMG_001", "IMG_002", "IMG_003")


@pytest.mark.parametrize(
    ("reply", "last_call", "cut"),
    [
        ("  words\n", False, "words"),
        ("a<tool_response>b</tool_response>c", False, "a"),
        ("<tool_response>b", False, ""),
        ("a<tool_call>b</tool_call><tool_response>c", False, "a<tool_call>b</tool_call>"),
        ("a<tool_call>b</tool_call><answer>{}</answer>", True, "a"),
        ("<answer>{}</answer><tool_call>b", True, "<answer>{}</answer>"),
        ("<answer>{}</answer>", True, "<answer>{}</answer>"),
        ("a <tool_response>b<tool_call>", True, "a"),
        ("lone \ud800 surrogate", False, "lone \ufffd surrogate"),
    ],
)
def test_a_reply_is_cut_where_the_protocol_says(reply: str, last_call: bool, cut: str) -> None:
    assert cut_reply(reply, last_call=last_call) == cut


@pytest.mark.parametrize(
    ("reply", "thought"),
    [
        ("<think> a b </think><answer>{}</answer>", "a b"),
        ("<think>a<tool_call>{}</tool_call>", "a"),
        ("<think>a", "a"),
        ("no block", ""),
        ("<think>first</think><think>second</think>", "first"),
    ],
)
def test_the_thought_is_the_first_think_block(reply: str, thought: str) -> None:
    assert thought_of(reply) == thought


@pytest.mark.parametrize(
    ("reply", "is_call", "is_answer"),
    [
        ("<tool_call>{}</tool_call>", True, False),
        ("<answer>{}</answer>", False, True),
        ("<tool_call>{}</tool_call><answer>{}</answer>", True, True),
        ("<tool_call>{<answer>{}</answer>", False, True),
        ("</tool_call> <tool_call>", True, False),
        ("<answer>{}", False, False),
        ("<TOOL_CALL>{}</TOOL_CALL>", False, False),
    ],
)
def test_both_tags_make_a_call_or_an_answer(reply: str, is_call: bool, is_answer: bool) -> None:
    assert (has_call(reply), has_answer(reply)) == (is_call, is_answer)


@pytest.mark.parametrize(
    ("reply", "limit", "texts"),
    [
        ("x<tool_call>a</tool_call><tool_call>b</tool_call>", 1, ["a"]),
        ("x<tool_call>a</tool_call><tool_call>b</tool_call>", 2, ["a", "b"]),
        ("x<tool_call>a</tool_call><tool_call>b</tool_call>", 9, ["a", "b"]),
        ("<tool_call>a</tool_call><tool_call>left open", 2, ["a"]),
        ("</tool_call><tool_call>a", 1, ["a"]),
        ("<tool_call><tool_call>a</tool_call>", 1, [""]),
    ],
)
def test_the_first_call_blocks_count(reply: str, limit: int, texts: list[str]) -> None:
    assert call_texts(reply, limit) == texts


NOT_FINITE = {"a": None, "b": [None, None, 1.5]}


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ('{"name": "search", "arguments": {"queries": ["a"]}}', "search", {"queries": ["a"]}),
        ("{name: 'search', arguments: {queries: ['a',],},}", "search", {"queries": ["a"]}),
        ('// words\n{"name": /* here */ "search", "arguments": {"top_k": +5}}', "search", {"top_k": 5}),
        ('{"arguments": {}}', "", {}),
        ('{"name": "search"}', "search", {}),
        ('{"name": null}', "None", {}),
        ('{"name": 7, "arguments": [1]}', "7", [1]),
        ('{"name": "browse", "arguments": "text"}', "browse", "text"),
        ('{"name": "a\\ud800"}', "a\ufffd", {}),
        ('{"name": "search", "arguments": {"a": NaN, "b": [1e999, -Infinity, 1.5]}}', "search", NOT_FINITE),
    ],
)  # fmt: skip
def test_a_call_is_read_leniently(text: str, name: str, arguments: Any) -> None:
    call = parse_call(text)
    assert (call.name, call.arguments) == (name, arguments)


@pytest.mark.parametrize(
    "text", ["", "search", "{", '["search"]', "5", '{"name": ["a"]}', "[" * 5000, '{"a": ' * 3000, "{" + "a" * 70_000]
)
def test_a_call_that_cannot_be_read_is_an_error_of_its_own(text: str) -> None:
    with pytest.raises(CallFormatError):
        parse_call(text)


def block(prompt: Any = "p", references: Any = ()) -> str:
    return f"<answer>{json.dumps({'gen_prompt': prompt, 'reference_images': references})}</answer>"


@pytest.mark.parametrize(
    ("reply", "prompt", "references"),
    [
        (block(), "p", ()),
        (block("", []), "", ()),
        (f"words <think>x</think>\n{block('p', [{'img_id': 'IMG_002', 'note': 'n'}])} words", "p", (("IMG_002", "n"),)),
        (block("p", [{"img_id": " IMG_001 "}]), "p", (("IMG_001", ""),)),
        (block("p", [{"img_id": "IMG_003"}, {"img_id": "IMG_001"}]), "p", (("IMG_003", ""), ("IMG_001", ""))),
        (block("p", [{"img_id": "IMG_001"}, {"img_id": "IMG_001"}]), "p", (("IMG_001", ""), ("IMG_001", ""))),
        (block("p", ["IMG_001", 5, None, {"img_id": "IMG_001"}]), "p", (("IMG_001", ""),)),
        (block("p", [{"img_id": "IMG_001", "note": None}]), "p", (("IMG_001", ""),)),
        (block("p", [{"img_id": "IMG_001", "note": ["a"]}]), "p", (("IMG_001", '["a"]'),)),
        (block("p", [{"img_id": "IMG_001"}] * 5 + [{"img_id": "IMG_099"}]), "p", (("IMG_001", ""),) * 5),
        (f"<answer>no JSON</answer>{block('second')}", "second", ()),
        (f"<answer>[{block('second')}]</answer>", "second", ()),
        (block("a } </answer> b".replace("</answer>", "<answer>")), "a } <answer> b", ()),
    ],
)
def test_an_answer_is_read_as_the_published_agent_reads_it(reply: str, prompt: str, references: Any) -> None:
    parsed = parse_answer(reply, KNOWN)
    assert (parsed.gen_prompt, parsed.references) == (prompt, references)


FAILS_ALWAYS = [
    "<answer></answer>", "<answer>words</answer>", f"<answer>[{json.dumps({'gen_prompt': 'p'})}]</answer>",
    "<answer>```json\n{}\n```</answer>", "<answer>{'gen_prompt': 'p', 'reference_images': []}</answer>",
    '<answer>{"gen_prompt": "p", "reference_images": [],}</answer>', f"<answer>{{bad</answer>{block()}",
    '<answer>{"gen_prompt": "p"}</answer>', '<answer>{"reference_images": []}</answer>', block("p", None),
    block("p", {}), block("p", "IMG_001"), block("p", [{"img_id": 5}]), "</answer>{}<answer>",
    f"<answer>Here: {block()[8:-9]}</answer>",
    '<answer>{"gen_prompt": ' + "[" * 100_000 + "}</answer>",
]  # fmt: skip


@pytest.mark.parametrize("last_call", [False, True])
@pytest.mark.parametrize("reply", FAILS_ALWAYS)
def test_an_answer_that_breaks_the_format_is_not_taken(reply: str, last_call: bool) -> None:
    with pytest.raises(AnswerFormatError):
        parse_answer(reply, KNOWN, last_call=last_call)


@pytest.mark.parametrize("item", [{"img_id": "IMG_009"}, {"img_id": ""}, {"note": "n"}, {"img_id": None}])
def test_an_unknown_image_fails_an_answer_until_the_last_call_which_leaves_it_out(item: dict[str, Any]) -> None:
    reply = block("p", [item, {"img_id": "IMG_001"}])
    with pytest.raises(AnswerFormatError):
        parse_answer(reply, KNOWN)
    assert parse_answer(reply, KNOWN, last_call=True).references == (("IMG_001", ""),)


@pytest.mark.parametrize(("prompt", "text"), [(5, "5"), (None, ""), (["a"], '["a"]'), (True, "true")])
def test_a_prompt_of_another_type_is_taken_at_the_last_call_alone(prompt: Any, text: str) -> None:
    with pytest.raises(AnswerFormatError, match="gen_prompt must be a string"):
        parse_answer(block(prompt), KNOWN)
    assert parse_answer(block(prompt), KNOWN, last_call=True).gen_prompt == text


def test_the_texts_that_go_back_are_those_of_the_protocol() -> None:
    assert observation(["found"]) == "<tool_response>\nfound\n</tool_response>"
    assert observation(["a", "b"]) == (
        "<tool_response>\na\n</tool_response>\n<tool_response>\nb\n</tool_response>"
    )  # fmt: skip
    assert observation([tool_error("not JSON")]) == "<tool_response>\n[Tool Error]: not JSON\n</tool_response>"
    assert call_error("search", "it broke") == "Error calling tool search: it broke"
    assert unknown_tool("visit", ["image_search", "search", "browse"]) == (
        "Tool visit not found. Available tools: ['image_search', 'search', 'browse']"
    )


TAGS = [
    "<tool_response>", "</tool_response>", "<tool_call>", "</tool_call>", "<answer>", "</answer>", "<think>",
    "</think>", "<tools>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<|image_pad|>",
    "<|video_pad|>", "<|vision_end|>", "< / TOOL_RESPONSE >", "<Tool_Call >", "<｜end▁of▁sentence｜>", "</s>",
    "<start_of_turn>", "[INST]", "[/INST]", "<|\u200bim_end|>", f"<{' ' * 40}tool_call>", "＜answer＞", "﹤|im_end|>",
]  # fmt: skip


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_in_data_is_escaped_and_still_readable(tag: str) -> None:
    escaped = escape_tags(f"before {tag} after")
    assert tag not in escaped and tag[1:] in escaped
    assert escaped.startswith("before ") and escaped.endswith(" after")


@pytest.mark.parametrize(
    "text",
    ["a < b > c", "<b>bold</b>", "if (a<b) {}", "[title](https://x) text", "x <- y", "<answers>", "IMG_001", "1 << 2"],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert escape_tags(text) == text


PIECES = st.sampled_from(
    [*TAGS, "<", ">", "/", "|", " ", "\n", "tool_", "response>", "call>", "im_end|>", "a", "‹", "<<", "\ud800"]
)


def written_tags(text: str) -> list[str]:
    """Return what a tokenizer or a careless reader takes for tags, by a search that is not that of the code."""
    squeezed = "".join(unicodedata.normalize("NFKC", text).split()).lower()
    names = ("tool_response", "tool_call", "tools", "answer", "think")
    found = [f"<{slash}{name}>" for name in names for slash in ("", "/") if f"<{slash}{name}>" in squeezed]
    return [*found, *(["<|"] if "<|" in squeezed else [])]


@settings(deadline=None)
@given(st.lists(PIECES | st.text(max_size=6), max_size=15).map("".join))
def test_no_text_opens_or_closes_a_tag(text: str) -> None:
    escaped = escape_tags(text)
    assert written_tags(escaped) == []
    assert escape_tags(escaped) == escaped
    assert len(escaped) == len(text)
    escaped.encode()
    shown = observation([text, text])
    assert shown.count("<tool_response>") == shown.count("</tool_response>") == 2
    assert written_tags(shown.replace("<tool_response>", "").replace("</tool_response>", "")) == []


@settings(deadline=None)
@given(
    st.lists(PIECES | st.sampled_from(["--- ", "---", "-", "end of", "begin", "search result"]), max_size=20).map(
        "".join
    )
)
def test_no_text_writes_the_lines_that_mark_off_results(text: str) -> None:
    for frame in ("--- end of search result ---", "--- search result for [x] ---", "--- begin of result part 1 ---"):
        assert frame not in escape_frames(f"{text}{frame}{text}")


@settings(deadline=None)
@given(st.text(max_size=200), st.booleans())
def test_any_reply_is_read_without_an_unexpected_error(text: str, last_call: bool) -> None:
    reply = cut_reply(text, last_call=last_call)
    assert reply == reply.strip() and "<tool_response>" not in reply
    thought_of(reply)
    for words in call_texts(f"<tool_call>{reply}</tool_call>"):
        try:
            parse_call(words)
        except CallFormatError:
            continue
    with pytest.raises(AnswerFormatError):
        parse_answer(f"<answer>{reply}</answer>", KNOWN, last_call=last_call)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.sampled_from(KNOWN),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["img_id", "note", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(JSON, JSON, st.booleans())
def test_whatever_json_an_answer_has_it_is_valid_or_an_error(prompt: Any, references: Any, last_call: bool) -> None:
    try:
        parsed = parse_answer(block(prompt, references), KNOWN, last_call=last_call)
    except AnswerFormatError:
        return
    assert isinstance(parsed.gen_prompt, str)
    assert isinstance(references, Sequence) and len(parsed.references) <= min(5, len(references))
    assert all(name in KNOWN and isinstance(note, str) for name, note in parsed.references)


@pytest.mark.parametrize("text", ["-" * 10**6, "--- " * 10**5, "<" + " " * 10**6, "<" * 10**6, "< /" * 10**5])
def test_long_texts_are_escaped_in_linear_time(text: str) -> None:
    """A pattern that looks at the rest of the text from each character would need hours for these."""
    assert len(escape_tags(text)) == len(text)
    assert escape_frames(f"{text}--- end of page").endswith("- - - end of page")


@pytest.mark.parametrize("text", ["<answer>{" * 10**5 + "</answer>", "<think>" + "<tool_cal" * 10**5, "}" * 10**5])
def test_long_replies_are_read_in_linear_time(text: str) -> None:
    thought_of(text)
    with pytest.raises(AnswerFormatError):
        parse_answer(text, KNOWN)
