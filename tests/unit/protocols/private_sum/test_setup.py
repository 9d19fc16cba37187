import pytest

from keys.hybrid import HybridKey
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum import setup
from protocols.proto.round_pb2 import Bundle, Encapsulations
from protocols.wire.signed_message import serialise
from tests.support.protocol_world import terms_of

TERMS = terms_of(4)
BUNDLES = {country: country.encode() * 16 for country in TERMS.roster}
CIPHERTEXTS = {country: country.encode() * 544 for country in TERMS.roster}


def signed_body(sender: str) -> bytes:
    return serialise(setup.encapsulations(TERMS, sender, BUNDLES, CIPHERTEXTS))


def test_a_country_encapsulates_to_every_country_later_in_the_roster() -> None:
    assert setup.higher(TERMS, "AT") == ("BE", "CZ", "DK")
    assert setup.higher(TERMS, "DK") == ()
    assert setup.lower(TERMS, "AT") == ()
    assert setup.lower(TERMS, "CZ") == ("AT", "BE")
    assert setup.ordered("BE", "AT") == setup.ordered("AT", "BE") == ("AT", "BE")


def test_signed_ciphertext_digests_are_read_by_receiver() -> None:
    digests = setup.read_encapsulations(TERMS, "BE", BUNDLES, signed_body("BE"))
    assert digests == {
        country: setup.ciphertext_digest(TERMS, "BE", country, CIPHERTEXTS[country])
        for country in ("CZ", "DK")
    }


def test_the_highest_country_signs_an_empty_list() -> None:
    assert setup.read_encapsulations(TERMS, "DK", BUNDLES, signed_body("DK")) == {}


@pytest.mark.parametrize("change", ["own-bundle", "other-bundle", "fewer", "more", "order"])
def test_a_list_for_other_bundles_or_receivers_names_its_signer(change: str) -> None:
    message = Encapsulations.FromString(signed_body("BE"))
    if change == "own-bundle":
        message.sender_bundle = bytes(32)
    elif change == "other-bundle":
        message.encapsulations[0].receiver_bundle = bytes(32)
    elif change == "fewer":
        message.encapsulations.pop()
    elif change == "more":
        message.encapsulations.add(receiver="AT", receiver_bundle=BUNDLES["AT"])
    else:
        message.encapsulations.reverse()
    with pytest.raises(Refusal, match="BE") as refusal:
        setup.read_encapsulations(TERMS, "BE", BUNDLES, serialise(message))
    assert refusal.value.code is ReasonCode.NOT_AUTHENTIC


def test_keys_of_a_bundle_are_checked_and_their_owner_named() -> None:
    public = HybridKey.generate().public
    bundle = Bundle(x25519=public.x25519, mlkem=public.mlkem)
    read = setup.read_bundle(serialise(bundle))
    assert setup.public_keys(read, "AT") == public
    for wrong in (
        Bundle(x25519=b"short", mlkem=public.mlkem),
        Bundle(x25519=public.x25519, mlkem=public.mlkem[:-1]),
        Bundle(x25519=public.x25519, mlkem=b"\xff" * 1184),
        Bundle(),
    ):
        with pytest.raises(Refusal, match="AT"):
            setup.public_keys(wrong, "AT")


def test_digests_belong_to_a_run_and_a_country() -> None:
    other = terms_of(4, run_id=bytes(16))
    digests = {
        setup.bundle_digest(terms, country, body)
        for terms in (TERMS, other)
        for country in ("AT", "BE")
        for body in (b"", b"keys")
    }
    assert len(digests) == 8


def test_the_transcript_covers_every_bundle_and_every_list() -> None:
    bodies = [signed_body(country) for country in TERMS.roster]
    transcripts = {setup.transcript(TERMS, BUNDLES, bodies)}
    transcripts.add(setup.transcript(terms_of(4, run_id=bytes(16)), BUNDLES, bodies))
    for index, country in enumerate(TERMS.roster):
        transcripts.add(setup.transcript(TERMS, {**BUNDLES, country: bytes(32)}, bodies))
        changed = [*bodies[:index], b"other", *bodies[index + 1 :]]
        transcripts.add(setup.transcript(TERMS, BUNDLES, changed))
    assert len(transcripts) == 2 + 2 * len(TERMS.roster)


def test_a_pair_secret_depends_on_everything_that_made_it() -> None:
    pair, secrets, digest = ("AT", "BE"), (b"x" * 32, b"k" * 32), b"d" * 32
    secret = {
        setup.pair_secret(TERMS, pair, BUNDLES, secrets, digest),
        setup.pair_secret(TERMS, ("AT", "CZ"), BUNDLES, secrets, digest),
        setup.pair_secret(TERMS, pair, {**BUNDLES, "AT": bytes(32)}, secrets, digest),
        setup.pair_secret(TERMS, pair, {**BUNDLES, "BE": bytes(32)}, secrets, digest),
        setup.pair_secret(TERMS, pair, BUNDLES, (b"y" * 32, b"k" * 32), digest),
        setup.pair_secret(TERMS, pair, BUNDLES, (b"x" * 32, b"l" * 32), digest),
        setup.pair_secret(TERMS, pair, BUNDLES, secrets, b"e" * 32),
        setup.pair_secret(terms_of(4, run_id=bytes(16)), pair, BUNDLES, secrets, digest),
    }
    assert len(secret) == 8


def test_refusals_say_what_to_do() -> None:
    refusal = setup.refuse_party("BE", "its keys changed")
    assert refusal.code is ReasonCode.NOT_AUTHENTIC
    assert str(refusal).startswith("A set-up message of BE is not valid. Its keys changed. To do:")
    assert setup.other_roster().code is ReasonCode.ROSTER
