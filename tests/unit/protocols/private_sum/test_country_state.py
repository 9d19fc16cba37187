import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from protocols.private_sum.country_state import CountryState, OpenRound, Stage

SECRETS = st.dictionaries(st.sampled_from(["AT", "BE", "CZ"]), st.binary(max_size=64))
OPENED = st.builds(
    OpenRound,
    context=st.binary(max_size=32),
    round_number=st.integers(1, 100),
    head=st.binary(max_size=100),
    own_share=st.binary(max_size=32),
    seals=SECRETS,
)
STATES = st.builds(
    CountryState,
    run=st.binary(max_size=32),
    stage=st.sampled_from(Stage),
    key=st.binary(max_size=96),
    bundle_bodies=SECRETS,
    kem_secrets=SECRETS,
    encapsulation=st.binary(max_size=50),
    bundles=SECRETS,
    transcript=st.binary(max_size=32),
    expected=SECRETS,
    links=SECRETS,
    round_number=st.integers(0, 100),
    used=st.dictionaries(st.sampled_from(["train", "count"]), st.integers(0, 9)),
    open_round=st.none() | OPENED,
)


@given(STATES)
def test_every_state_is_read_back_from_storage(state: CountryState) -> None:
    assert CountryState.model_validate_json(state.model_dump_json()) == state


def test_a_state_is_immutable() -> None:
    with pytest.raises(ValidationError):
        CountryState(run=b"").stage = Stage.READY  # type: ignore[misc]


def test_a_new_state_is_empty() -> None:
    state = CountryState(run=b"r")
    assert state.stage is Stage.FRESH
    assert not any((state.key, state.links, state.used, state.open_round, state.round_number))
