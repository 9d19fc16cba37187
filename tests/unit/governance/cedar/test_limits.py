"""Cedar text is bounded in bytes, tokens and levels; the worst text within the bounds is read."""

import time
from bisect import bisect_left
from collections.abc import Callable

import pytest

from governance.cedar.engine import check_national
from governance.cedar.limits import MAX_BYTES, MAX_LEVELS, MAX_WORDS, check_limits
from governance.cedar.texts import BASE_POLICY
from governance.errors import DocumentFault

Shape = Callable[[int], str]

NESTED: dict[str, Shape] = {
    "parentheses": lambda n: "(" * n + "true" + ")" * n,
    "sets": lambda n: "[" * n + "]" * n + " == []",
    "records": lambda n: '{"a":' * n + "1" + "}" * n + " == {}",
    "calls": lambda n: "decimal(" * n + '"1"' + ")" * n + ' == decimal("1")',
    "if": lambda n: "if true then " * n + "true" + " else true" * n,
    "if in parentheses": lambda n: "(if true then " * n + "true" + " else true)" * n,
    "mixed brackets": lambda n: "([{" * n + "}])" * n,
}
CHAINED: dict[str, Shape] = {
    "and": lambda n: " && ".join(["true"] * n),
    "or": lambda n: " || ".join(["true"] * n),
    "plus": lambda n: "+".join(["1"] * n) + " == 1",
    "times": lambda n: "1" + "*1" * n + " == 1",
    "members": lambda n: "context" + ".a" * n + " == 1",
    "indexes": lambda n: "context" + '["a"]' * n + " == 1",
    "calls": lambda n: "context" + ".contains(1)" * n,
    "negations": lambda n: "!" * n + "true",
}


def policy(condition: str) -> str:
    return f'@id("a") forbid (principal, action, resource) when {{ {condition} }};'


@pytest.mark.parametrize("count", [MAX_LEVELS + 1, 1_000])
@pytest.mark.parametrize("shape", NESTED.values(), ids=NESTED)
def test_deep_text_is_refused_before_it_is_parsed(shape: Shape, count: int) -> None:
    with pytest.raises(DocumentFault, match="inside each other"):
        check_limits("The policy", policy(shape(count)))


@pytest.mark.parametrize("shape", CHAINED.values(), ids=CHAINED)
def test_a_long_chain_is_refused_before_it_is_parsed(shape: Shape) -> None:
    with pytest.raises(DocumentFault, match="words and signs"):
        check_limits("The policy", policy(shape(MAX_WORDS)))


@pytest.mark.parametrize("name", [*NESTED, *CHAINED])
def test_the_worst_text_within_the_limits_gets_an_answer(name: str) -> None:
    shape = NESTED.get(name) or CHAINED[name]
    count = bisect_left(range(MAX_WORDS), 1, key=lambda n: not is_within_limits(policy(shape(n))))
    count -= 1  # the largest within the limits
    assert "process" not in why_refused(policy(shape(count))), "Cedar's process survives it"


def why_refused(text: str) -> str:
    try:
        check_national(text)
    except DocumentFault as fault:
        return fault.why
    return ""


def is_within_limits(text: str) -> bool:
    try:
        check_limits("", text)
    except DocumentFault:
        return False
    return True


@pytest.mark.parametrize("sign", ["(;", "[;", "{;", '"a";('])
def test_no_sign_in_between_lets_a_text_be_deeper(sign: str) -> None:
    assert not is_within_limits(policy(sign * (MAX_LEVELS + 2)))


@pytest.mark.parametrize("open_text", ["(" * 5_000, "//(\n" + "[" * 5_000, "//\r" + "{" * 5_000])
def test_unfinished_text_is_bounded_as_well(open_text: str) -> None:
    assert not is_within_limits(open_text)


@pytest.mark.parametrize("text", ['"' * 60_001, '"' + '\\"' * 30_000, '"' + "\\" * 60_001])
def test_a_text_in_quotes_without_end_costs_no_more_than_another(text: str) -> None:
    begun = time.process_time()
    is_within_limits(text)
    assert time.process_time() - begun < 1.0, "quadratic time would take minutes"


@pytest.mark.parametrize("harmless", ["// " + "(" * 5_000, f'"{"(" * 5_000}" == ""'])
def test_brackets_in_comments_and_texts_are_no_levels(harmless: str) -> None:
    check_limits("The policy", policy(f"true\n{harmless}\n"))


def test_many_short_policies_are_within_the_limits() -> None:
    check_limits("The policy", BASE_POLICY * 6)


def test_text_is_bounded_in_bytes_not_characters() -> None:
    check_limits("The policy", "//" + "x" * (MAX_BYTES - 2))
    with pytest.raises(DocumentFault, match="larger than 64 kB"):
        check_limits("The policy", "//" + "δ" * (MAX_BYTES // 2))


def test_the_line_of_the_problem_is_named() -> None:
    with pytest.raises(DocumentFault, match="Line 3:"):
        check_limits("The policy", "\n\n" + policy("(" * 40))
