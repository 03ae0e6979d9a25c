"""What `pulvinar data inspect` prints. Oracle: the rows themselves."""

from pulvinar.app import inspect_text


def test_every_block_of_a_narrow_table_says_which_run_a_row_is():
    rows = [{"subject": "sub-01", "run": f"run-{run}", "series": "s" * 40, "volumes": 70 + run} for run in range(3)]
    blocks = inspect_text.TABLES["runs"](rows).text(60).split("\n\n")
    assert len(blocks) == 2
    for block in blocks:
        assert [line.split()[:2] for line in block.splitlines()[-3:]] == [["sub-01", f"run-{run}"] for run in range(3)]
