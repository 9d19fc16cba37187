"""Every parser of bytes from outside reads them or refuses them, and does nothing else.

`make fuzz` tries the same parsers for longer, led by the code that its inputs reach. What it
found has tests beside the modules that were wrong.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governance.audit.note import NoteKey
from governance.errors import LogFault
from tests.fuzz.target import Seeds, Target
from tests.fuzz.targets import TARGETS
from tests.support.examples import examples


@st.composite
def changed(draw: st.DrawFn, seeds: Seeds) -> bytes:
    """Return one of these inputs with other bytes at one place."""
    data = draw(st.sampled_from(seeds))
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(start + 20, len(data))))
    return data[:start] + draw(st.binary(max_size=20)) + data[end:]


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@settings(max_examples=examples(80), deadline=None)
@given(choice=st.data())
def test_any_bytes_and_changed_inputs(target: Target, choice: st.DataObject) -> None:
    target.check(choice.draw(st.binary(max_size=200) | changed(target.seeds)))


def test_a_log_key_typed_with_bytes_that_are_no_text_is_refused() -> None:
    typed = b"f\xe2zz+315f8721+Aed++hp7wh27qL91/Aed++hp7wh27qL9RN9Dp999wh9l"
    with pytest.raises(LogFault, match="not a log's public key"):
        NoteKey.from_text(typed.decode(errors="surrogateescape"))
