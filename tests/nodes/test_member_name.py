"""A name in a consumer group that outlives its process."""

import subprocess
import sys
import textwrap
from pathlib import Path

from nodes.member_name import member_name

HOLDER = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from nodes.member_name import member_name

    with member_name(Path(sys.argv[1]), "g") as name:
        print(name, flush=True)
        time.sleep(60)
    """
)


def hold(folder: Path) -> tuple[subprocess.Popen[str], str]:
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, child.stdout.readline().strip()


def test_the_name_of_a_killed_process_is_taken_over_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    child, name = hold(tmp_path)
    with member_name(tmp_path, "g") as other:
        assert other != name
    child.kill()
    child.communicate()
    with member_name(tmp_path, "g") as again:
        assert again == name


def test_groups_do_not_share_names(tmp_path: Path) -> None:
    with member_name(tmp_path, "g") as one, member_name(tmp_path, "h") as other:
        assert one == other, "each group counts for itself"


def test_where_no_lock_can_be_had_there_is_no_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with member_name(tmp_path / "file", "g") as name:
        assert name is None
