"""The independent country opens sums over the sets that the page allows, and refuses others.

Each lie is signed with the coordinator's own key. Afterwards the country answers the honest
request: the refusal has changed nothing.
"""

from collections.abc import Callable

import numpy as np
import pytest

from keys.identity import SigningKey
from protocols.private_sum.coordinator_round import OpenedSum
from protocols.proto import round_pb2 as pb
from tests.support.protocol_world import (
    IDENTITIES,
    altered_request,
    parts_of,
    with_body,
)
from tests.vectors.derivations import versions_digest
from tests.vectors.seat import (
    ME,
    OTHER,
    SEALED,
    STRANGER,
    WRONG_PARTS,
    Change,
    agreed_round,
    contributed_round,
    other_parts,
    refusal,
    require_refusal,
)

# ---- agree -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "code"),
    [
        (["AT", "BE"], "roster"),
        (["AT", "CZ", "DK"], "roster"),
        (["BE", "AT", "CZ"], "roster"),
        (["AT", "BE", "BE"], "roster"),
        (["AT", "BE", "XX"], "roster"),
        (["AT", "BE", "CZ", "DK"], "roster"),
    ],
    ids=["too small", "without it", "not sorted", "twice", "a stranger", "the roster"],
)
def test_an_invalid_set_is_not_signed(named: list[str], code: str) -> None:
    world, country, round_ = contributed_round("DK")

    def change(body: pb.RequestBody) -> None:
        body.agree.countries[:] = named

    require_refusal(country, round_.agree_request(ME), code, change)
    require_refusal(country, round_.agree_request(ME), "malformed", parts=[bytes(SEALED)])
    world.agree(round_, ME)


def test_a_second_set_is_not_signed() -> None:
    world, country, round_ = contributed_round("DK")
    first = world.agree(round_, ME)

    def change(body: pb.RequestBody) -> None:
        body.agree.countries[:] = ["AT", "BE", "DK"]

    require_refusal(country, round_.agree_request(ME), "stale", change)
    assert country.take(round_.agree_request(ME)) == first


def agree_instead(body: pb.RequestBody) -> None:
    body.ClearField("answer")
    body.agree.round, body.agree.countries[:] = 1, ["AT", "BE", "CZ"]


def test_no_set_is_signed_after_its_answer() -> None:
    world, country, round_ = contributed_round()
    world.answer(round_, ME)

    honest = round_.answer_request(ME)
    require_refusal(country, honest, "stale", agree_instead, phase=pb.PHASE_AGREE, parts=[])


# ---- answer ------------------------------------------------------------------------------


def signed_by(name: str, body: pb.Assent, message: pb.Signed, **claims: object) -> pb.Signed:
    key = IDENTITIES[name]
    serialised = body.SerializeToString(deterministic=True)
    return with_body(message, serialised, key, sender=name, **claims)


def assents(change: Callable[[list[pb.Signed]], list[pb.Signed]]) -> Change:
    def changed(body: pb.RequestBody) -> None:
        given = change(list(body.answer.assents))
        del body.answer.assents[:]
        body.answer.assents.extend(given)

    return changed


def another_set(given: list[pb.Signed]) -> list[pb.Signed]:
    other_body = pb.Assent(round=1, countries=["AT", "CZ", "DK"])
    return [*given[:2], signed_by(OTHER, other_body, given[2])]


def another_round(given: list[pb.Signed]) -> list[pb.Signed]:
    other_body = pb.Assent(round=2, countries=["AT", "BE", "CZ"])
    return [*given[:2], signed_by(OTHER, other_body, given[2])]


def an_outsider(given: list[pb.Signed]) -> list[pb.Signed]:
    return [*given[:2], signed_by("DK", pb.Assent.FromString(given[2].body), given[2])]


def another_context(given: list[pb.Signed]) -> list[pb.Signed]:
    other_body = pb.Assent.FromString(given[2].body)
    return [*given[:2], signed_by(OTHER, other_body, given[2], context=bytes(32))]


def forged(given: list[pb.Signed]) -> list[pb.Signed]:
    return [*given[:2], with_body(given[2], given[2].body, STRANGER)]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (another_set, "roster"),
        (another_round, "roster"),
        (an_outsider, "roster"),
        (lambda given: given[:2], "roster"),
        (lambda given: [given[0], *given[:2]], "roster"),
        (lambda given: given[::-1], "roster"),
        (another_context, "stale"),
        (forged, "not-authentic"),
    ],
    ids=[
        *("another set", "another round", "an outsider", "too few", "one twice", "not sorted"),
        *("another context", "forged"),
    ],
)
def test_invalid_signatures_on_a_set_are_refused(
    change: Callable[[list[pb.Signed]], list[pb.Signed]], code: str
) -> None:
    world, country, round_ = agreed_round()
    require_refusal(country, round_.answer_request(ME), code, assents(change))
    for name in ("AT", ME, OTHER):
        world.answer(round_, name)
    assert isinstance(round_.open(), OpenedSum)


def test_it_does_not_answer_for_the_roster_after_signing_a_smaller_set() -> None:
    _, country, round_ = contributed_round()
    honest = round_.answer_request(ME)
    signing = altered_request(honest, agree_instead, phase=pb.PHASE_AGREE, parts=[])
    assert not refusal(country.take(signing))
    assert refusal(country.take(honest)) == "roster"


def test_a_second_answer_is_refused() -> None:
    world, country, round_ = contributed_round()
    honest, first = round_.answer_request(ME), world.answer(round_, ME)
    require_refusal(country, honest, "stale", parts=[bytes(3 * SEALED)])
    assert country.take(honest) == first


def long_head(body: pb.RequestBody) -> None:
    """Append 64 KiB that belong to no field to the head of OTHER."""
    message = next(signed for signed in body.answer.heads if signed.sender == OTHER)
    unknown = b"\xfa\x3f\x80\x80\x04" + bytes(2**16)
    message.CopyFrom(with_body(message, message.body + unknown, IDENTITIES[OTHER]))


def test_an_answer_request_that_names_another_round_is_refused() -> None:
    world, country, round_ = contributed_round()

    def change(body: pb.RequestBody) -> None:
        body.answer.round = 2

    require_refusal(country, round_.answer_request(ME), "stale", change)
    world.answer(round_, ME)


def head_of(sender: str, key: SigningKey, **fields: bytes | int) -> Change:
    """Give the head of a country these fields, signed with this key."""

    def change(body: pb.RequestBody) -> None:
        message = next(signed for signed in body.answer.heads if signed.sender == sender)
        head = pb.ContributionHead.FromString(message.body)
        head.MergeFrom(pb.ContributionHead(**fields))  # type: ignore[arg-type]
        message.CopyFrom(with_body(message, head.SerializeToString(deterministic=True), key))

    return change


def test_invalid_heads_are_refused() -> None:
    world, country, round_ = contributed_round()
    honest = round_.answer_request(ME)
    require_refusal(country, honest, "not-authentic", head_of(OTHER, STRANGER))
    mark = {"seed_commitment": bytes(32)}
    require_refusal(country, honest, "not-authentic", head_of(ME, IDENTITIES[ME], **mark))
    require_refusal(country, honest, "malformed", long_head)
    require_refusal(country, honest, "roster", lambda body: body.answer.heads.pop())
    world.answer(round_, ME)


@pytest.mark.parametrize("wrong", WRONG_PARTS)
def test_other_sealed_shares_than_one_of_each_other_country_are_refused(wrong: str) -> None:
    world, country, round_ = contributed_round()
    honest = round_.answer_request(ME)
    require_refusal(country, honest, "roster", parts=other_parts(parts_of(honest, SEALED))[wrong])
    world.answer(round_, ME)


# ---- document versions -------------------------------------------------------------------


def of_other(versions: pb.DocumentVersions, *shown_versions: pb.DocumentVersions) -> Change:
    """Let OTHER's head name these versions, and show these too, in the order of their digests."""

    def change(body: pb.RequestBody) -> None:
        head_of(OTHER, IDENTITIES[OTHER], versions_digest=versions_digest(versions))(body)
        body.answer.versions.extend(shown_versions)
        body.answer.versions.sort(key=versions_digest)

    return change


def twice(body: pb.RequestBody) -> None:
    body.answer.versions.append(body.answer.versions[0])


def out_of_order(body: pb.RequestBody) -> None:
    of_other(OLDER, OLDER)(body)
    body.answer.versions.reverse()


OLDER, NEWER = pb.DocumentVersions(root=3, targets=2), pb.DocumentVersions(root=4)
NEWER_OF_ONE = pb.DocumentVersions(countries={"AT": 4})
MANY = pb.DocumentVersions(countries={f"{at:03}": 0 for at in range(257)})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (of_other(OLDER), "malformed"),
        (lambda body: body.answer.versions.append(OLDER), "malformed"),
        (lambda body: body.answer.ClearField("versions"), "malformed"),
        (lambda body: body.answer.versions[0].CopyFrom(OLDER), "malformed"),
        (of_other(OLDER, NEWER), "malformed"),
        (twice, "malformed"),
        (out_of_order, "malformed"),
        (head_of(OTHER, IDENTITIES[OTHER], round=2), "malformed"),
        (of_other(NEWER, NEWER), "documents-behind"),
        (of_other(NEWER_OF_ONE, NEWER_OF_ONE), "documents-behind"),
        (of_other(MANY, MANY), "malformed"),
    ],
    ids=[
        *("one missing", "one too many", "none", "others", "others than a head's"),
        *("twice", "out of order", "a head of another round"),
        *("newer", "newer of a country", "of too many countries"),
    ],
)
def test_versions_that_no_head_names_or_that_are_newer_are_refused(
    change: Change, code: str
) -> None:
    world, country, round_ = contributed_round()
    require_refusal(country, round_.answer_request(ME), code, change)
    world.answer(round_, ME)


def test_older_versions_in_a_head_are_accepted() -> None:
    _, country, round_ = contributed_round()
    honest = round_.answer_request(ME)
    assert not refusal(country.take(altered_request(honest, of_other(OLDER, OLDER))))


# ---- the content of answers --------------------------------------------------------------


def test_a_share_that_does_not_open_is_reported_and_the_sum_opens_without_it() -> None:
    world, country, round_ = contributed_round()
    honest = round_.answer_request(ME)
    _, *others = parts_of(honest, SEALED)
    reply = country.take(altered_request(honest, parts=[bytes(SEALED), *others]))
    answer = pb.Answer.FromString(pb.Reply.FromString(reply).answer.body)
    assert list(answer.unopenable) == ["AT"]
    assert answer.shares[:32] == bytes(32)
    assert len(answer.shares) == 4 * 32
    round_.take_answer(ME, reply)
    for name in ("AT", OTHER, "DK"):
        world.answer(round_, name)
    result = round_.open()
    assert isinstance(result, OpenedSum)
    assert result.unopenable == ((ME, "AT"),)
    assert not np.any(result.values)


# ---- erased secrets ----------------------------------------------------------------------


def test_secrets_are_erased_when_the_page_says() -> None:
    world, country, round_ = contributed_round("DK")
    run, now = country.run, country.round
    assert run is not None
    assert now is not None
    assert (run.x25519, run.mlkem, run.secrets) == (None, None, {})
    assert (run.link_round, now.sealers) == (2, {})
    assert sorted(now.masks) == ["AT", "CZ", "DK"]
    world.agree(round_, ME)
    assert sorted(now.masks) == ["DK"]
    for name in ("AT", OTHER):
        world.agree(round_, name)
    world.answer(round_, ME)
    assert (now.masks, now.openers, now.own_share) == ({}, {}, b"")
