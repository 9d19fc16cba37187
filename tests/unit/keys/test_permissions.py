from pathlib import Path

import pytest

from keys.errors import KeyFault
from keys.permissions import refuse_if_shared


@pytest.mark.parametrize("mode", [0o601, 0o602, 0o604, 0o610, 0o620, 0o640, 0o644, 0o666, 0o777])
def test_a_file_open_to_others_is_refused_with_the_command_to_fix_it(
    tmp_path: Path, mode: int
) -> None:
    file = tmp_path / "secret"
    file.touch()
    file.chmod(mode)
    with pytest.raises(KeyFault) as caught:
        refuse_if_shared(file, file.stat())
    assert caught.value.fix == f"chmod 0600 {file}"
    assert f"{mode:04o}" in caught.value.why


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_a_file_of_the_owner_only_is_accepted(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "secret"
    file.touch()
    file.chmod(mode)
    refuse_if_shared(file, file.stat())


def test_a_directory_open_to_others_is_refused_with_another_command(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    with pytest.raises(KeyFault) as caught:
        refuse_if_shared(tmp_path, tmp_path.stat())
    assert caught.value.fix == f"chmod 0700 {tmp_path}"
    tmp_path.chmod(0o700)
    refuse_if_shared(tmp_path, tmp_path.stat())
