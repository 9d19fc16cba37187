from protocols.private_sum.ratchet import (
    advance,
    confirmation,
    first_link,
    mask_key,
    sealing_key,
)

SECRET, TRANSCRIPT, CONTEXT = b"s" * 32, b"t" * 32, b"c" * 32


def test_both_countries_derive_the_same_chain_and_masks() -> None:
    one = first_link(SECRET, TRANSCRIPT, "AT", "BE")
    other = first_link(SECRET, TRANSCRIPT, "BE", "AT")
    assert one == other
    assert mask_key(one, CONTEXT, "AT", "BE") == mask_key(other, CONTEXT, "BE", "AT")
    assert advance(one, TRANSCRIPT, "AT", "BE", 3) == advance(other, TRANSCRIPT, "BE", "AT", 3)


def test_steps_add_up() -> None:
    link = first_link(SECRET, TRANSCRIPT, "AT", "BE")
    stepped = link
    for _ in range(5):
        stepped = advance(stepped, TRANSCRIPT, "AT", "BE", 1)
    assert stepped == advance(link, TRANSCRIPT, "AT", "BE", 5)
    assert advance(link, TRANSCRIPT, "AT", "BE", 0) == link


def test_keys_differ_by_direction() -> None:
    assert confirmation(SECRET, TRANSCRIPT, "AT", "BE") != confirmation(
        SECRET, TRANSCRIPT, "BE", "AT"
    )
    assert sealing_key(SECRET, CONTEXT, "AT", "BE") != sealing_key(SECRET, CONTEXT, "BE", "AT")


def test_no_two_uses_share_a_key() -> None:
    keys = [
        first_link(SECRET, TRANSCRIPT, "AT", "BE"),
        first_link(SECRET, TRANSCRIPT, "AT", "CZ"),
        first_link(SECRET, CONTEXT, "AT", "BE"),
        first_link(TRANSCRIPT, TRANSCRIPT, "AT", "BE"),
        advance(SECRET, TRANSCRIPT, "AT", "BE", 1),
        confirmation(SECRET, TRANSCRIPT, "AT", "BE"),
        mask_key(SECRET, TRANSCRIPT, "AT", "BE"),
        mask_key(SECRET, CONTEXT, "AT", "BE"),
        mask_key(SECRET, CONTEXT, "AT", "CZ"),
        sealing_key(SECRET, TRANSCRIPT, "AT", "BE"),
        sealing_key(SECRET, CONTEXT, "AT", "BE"),
    ]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {32}
