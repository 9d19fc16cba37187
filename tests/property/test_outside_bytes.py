"""Every parser of bytes from outside reads them or refuses them, and does nothing else.

`make fuzz` tries the same parsers for longer, led by the code that its inputs reach. What it
found has tests beside the modules that were wrong.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governance.audit.note import NoteKey
from governance.errors import LogFault
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS
from tests.support.examples import examples

every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@every_target
@settings(max_examples=examples(40), deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes(target: Target, data: bytes) -> None:
    target.check(data)


@every_target
@settings(max_examples=examples(80), deadline=None)
@given(choice=st.data())
def test_changed_inputs(target: Target, choice: st.DataObject) -> None:
    data = choice.draw(st.sampled_from(target.seeds))
    start = choice.draw(st.integers(0, len(data)))
    end = choice.draw(st.integers(start, min(start + 20, len(data))))
    target.check(data[:start] + choice.draw(st.binary(max_size=20)) + data[end:])


def test_a_log_key_typed_with_bytes_that_are_no_text_is_refused() -> None:
    typed = b"f\xe2zz+315f8721+Aed++hp7wh27qL91/Aed++hp7wh27qL9RN9Dp999wh9l"
    with pytest.raises(LogFault, match="not a log's public key"):
        NoteKey.from_text(typed.decode(errors="surrogateescape"))
