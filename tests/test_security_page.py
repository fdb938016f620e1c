"""Every test that the page on security names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_each_line_names_tests_that_exist():
    named = 0
    for line in (ROOT / "docs" / "security.md").read_text(encoding="utf-8").splitlines():
        file = ""
        for told in re.findall(r"`((?:tests/[^`:]+\.py)?(?:::\w+)?)`", line):
            path, _, test = told.partition("::")
            file = path or file
            if not file:
                continue
            source = (ROOT / file).read_text(encoding="utf-8")
            assert not test or f"def {test}(" in source, told
            named += 1
    assert named > 30
