"""What comes out of a file has a budget, whatever the file weighs; and the work is linear in what goes in."""

import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest
from hostile_files import HEADER, hollow_arrow, package, repeating_parquet, zip_bomb, zip_of_folders

from components.tasks import containers, parquet, records
from components.tasks.containers import open_package
from components.tasks.package import read_package
from components.tasks.problems import PackageError, Problem, show
from components.tasks.rows import RowCheck
from components.tasks.values import as_text

MB = 1024 * 1024


def refusal(path: Path, content: bytes) -> str:
    """Words of the refusal of a container."""
    path.write_bytes(content)
    with pytest.raises(PackageError) as error, open_package(path, path.parent / "scratch"):
        pass
    return str(error.value)


@pytest.mark.parametrize("kind", ["large_string", "string_view", "binary", "list", "large_list", "struct", "messages",
                                  "map", "dictionary"])  # fmt: skip
def test_a_value_that_each_row_repeats_counts_as_often_as_it_is_there(kind):
    content = repeating_parquet(kind)
    assert len(content) < 10_000
    *_, (_, last) = parquet.rows(content, "x.parquet")
    assert isinstance(last, Problem)
    assert last.seen.startswith("more than")
    assert "characters, at row" in last.seen


def test_values_of_a_fixed_width_are_measured_by_their_type():
    *_, (_, last) = parquet.rows(repeating_parquet("fixed", rows=100, size=2 * MB), "x.parquet")
    assert isinstance(last, Problem)
    assert "the widest of 2097152 bytes" in last.seen


def test_values_that_take_no_room_are_counted():
    *_, (_, last) = parquet.rows(repeating_parquet("empty lists"), "x.parquet")
    assert isinstance(last, Problem)
    assert "60000000 values" in last.seen or "60002000 values" in last.seen or "60004000 values" in last.seen


@pytest.mark.parametrize("kind", ["fixed_size_list", "view"])
def test_an_arrow_file_is_measured_before_it_is_unpacked(kind):
    content = hollow_arrow(kind)
    assert len(content) < MB
    *_, (_, last) = parquet.rows(content, "x.arrow", ".arrow")
    assert isinstance(last, Problem)
    assert last.seen.startswith("more than")


def test_an_arrow_type_that_no_data_set_needs_is_refused():
    ((_, only),) = parquet.rows(hollow_arrow("run_end"), "x.arrow", ".arrow")
    assert isinstance(only, Problem)
    assert "run_end_encoded" in only.seen


def test_endless_rows_of_nothing_end_with_the_limit_of_rows():
    rows = parquet.rows(hollow_arrow("null"), "x.arrow", ".arrow")
    assert [next(rows) for _ in range(1000)][-1] == (1000, {})


def test_nested_texts_and_bytes_are_still_the_same_values(tmp_path):
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "messages": [[{"role": "user", "content": "é"}, {"role": "assistant", "content": "b"}], None],
            "image": [{"bytes": b"\x00\x01", "path": None}, None],
            "choices": [["a", "a", "b"], []],
            "large": pa.array(["x", None], pa.large_string()),
            "when": pa.array([1, 2], pa.timestamp("s")),
        }
    )
    made = io.BytesIO()
    pq.write_table(table, made)
    (_, first), (_, second) = parquet.rows(made.getvalue(), "x.parquet")
    assert first["messages"] == [{"role": "user", "content": "é"}, {"role": "assistant", "content": "b"}]
    assert first["image"] == {"bytes": b"\x00\x01"}
    assert (first["choices"], first["large"], second["choices"]) == (["a", "a", "b"], "x", [])
    assert second.keys() == {"choices", "when"}


def test_a_zip_with_a_million_members_is_not_listed_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "MAX_ENTRIES", 1000)
    made = []
    plain = zipfile.ZipInfo.__init__
    monkeypatch.setattr(zipfile.ZipInfo, "__init__", lambda self, *a, **k: made.append(1) or plain(self, *a, **k))
    content = zip_of_folders(5000)
    made.clear()
    assert "more than 1000 files and folders" in refusal(tmp_path / "p.zip", content)
    assert len(made) <= 1001


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_with_a_compression_whose_memory_has_no_bound_is_refused(tmp_path, compression):
    assert "another compression than deflate" in refusal(tmp_path / "p.zip", zip_bomb(compression, MB))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_tar_header_of_megabytes_is_refused_before_it_is_read(tmp_path, kind):
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, 8 * MB
    content = pa.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(8 * MB), codec="zstd", asbytes=True)
    assert "at most 65536 bytes in a header" in refusal(tmp_path / "p.tar.zst", content)


def test_a_tar_of_endless_folders_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "MAX_ENTRIES", 100)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for number in range(500):
            folder = tarfile.TarInfo(f"{number}")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
    content = pa.compress(raw.getvalue(), codec="zstd", asbytes=True)
    assert "more than 100 files and folders" in refusal(tmp_path / "p.tar.zst", content)


def test_a_folder_of_endless_folders_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("components.tasks.package.MAX_ENTRIES", 50)
    folder = package(tmp_path / "p")
    for number in range(60):
        (folder / f"d{number}").mkdir()
    with pytest.raises(PackageError, match="more than 50 files and folders"):
        read_package(folder)


@pytest.mark.parametrize("value", ["0x" + "f" * 60_000, "0b" + "1" * 60_000, ":".join(["59"] * 9000)])
def test_an_integer_of_thousands_of_digits_in_task_yaml_is_a_refusal(tmp_path, value):
    folder = package(tmp_path / "p")
    (folder / "task.yaml").write_text(f"{HEADER}target: {value}\n", encoding="utf-8")
    with pytest.raises(PackageError, match=r"task\.yaml"):
        read_package(folder)
    assert show(1 << 100_000) == "a int too large to print"


def test_a_decimal_of_a_huge_exponent_is_not_written_out():
    assert as_text(Decimal("1E+40")) == "1" + "0" * 40
    huge = Decimal("1E+2000000000") if Decimal("1E+999999").is_finite() else Decimal(0)
    assert as_text(huge) is huge
    assert as_text(Decimal("1E-999999")) == Decimal("1E-999999")


class Counted(str):
    """A text that counts how often it is compared."""

    __slots__ = ()
    compared: ClassVar[Counter[str]] = Counter()

    def __eq__(self, other: object) -> bool:
        self.compared["=="] += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_a_key_twice_among_many_is_named_without_comparing_each_with_each():
    def comparisons(keys: int) -> int:
        Counted.compared.clear()
        names = [Counted(f"k{n}") for n in range(keys)]
        assert records.twice_named([*names, Counted(f"k{keys - 1}")]) == f"k{keys - 1}"
        return Counted.compared["=="]

    assert comparisons(4000) <= 2 * comparisons(2000) + 10
    assert "the key 'b' twice" in str(_not_json('{"a": 1, "b": 2, "b": 3}'))


def _not_json(text: str) -> records.NotJson:
    with pytest.raises(records.NotJson) as error:
        records.load(text)
    return error.value


def test_an_answer_is_looked_up_among_choices_not_compared_with_each():
    def comparisons(choices: int) -> int:
        check = RowCheck(tuple(Counted(f"choice {n}") for n in range(choices)))
        rows = [{"instruction": "a", "output": f"choice {choices - 1} "} for _ in range(50)]
        check({"instruction": "a", "output": "choice 1"}, Counter())
        Counted.compared.clear()
        assert {check(row, Counter()).output for row in rows} == {f"choice {choices - 1}"}
        return Counted.compared["=="]

    assert comparisons(400) <= 2 * comparisons(200) + 10


LINEAR = {
    "an address that never comes": "personal_data('a' * 2_000_000 + '@')",
    "domains that end in no letter": "personal_data('a@' + 'a.' * 500_000 + '1')",
    "many addresses": "personal_data('a@b.c' * 300_000)",
    "digits": "personal_data('0' * 1_000_000 + '@')",
    "digits and blanks": "personal_data('1 ' * 500_000)",
    "half a telephone number": "personal_data('(030)' * 200_000)",
    "blanks in a text without spaces": "even_out('漢' + 'a' + ' ' * 1_000_000 + 'a')",
    "control characters": "forbidden_character('a' * 5_000_000)",
}
"""Texts of megabytes, for which work in the square of the length would take hours."""


@pytest.mark.parametrize("what", LINEAR)
def test_patterns_take_seconds_of_processor_time_for_megabytes(what):
    """An engine with a bound: the process is ended by the kernel when it has used its processor time."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (30, 30));"
        "from components.quality.personal import personal_data; from components.words import even_out;"
        f"from components.tasks.problems import forbidden_character; {LINEAR[what]}"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_addresses_are_the_ones_that_the_pattern_of_the_field_finds():
    from components.quality.personal import personal_data

    text = "a.b@c.de, x@y@z.org _q@r.s-t.com. no@dots @none.de e@f.g1 u@v.com-w@x.net"
    assert personal_data(text) == [
        "e-mail a***@***.de", "e-mail y***@***.org", "e-mail _***@***.com", "e-mail u***@***.com",
        "e-mail -***@***.net",
    ]  # fmt: skip


def test_real_data_is_far_from_every_budget(tmp_path):
    """As large a package as people bring: 100,000 rows of 2 kB are one file of 200 MB."""
    from components.settings import PackageSettings
    from components.tasks.package import MAX_PACKAGE_BYTES
    from components.tasks.problems import MAX_FILE_BYTES, MAX_ROWS

    budget = PackageSettings()
    assert MAX_ROWS >= 100_000
    assert MAX_FILE_BYTES >= 100_000 * 2000
    assert MAX_PACKAGE_BYTES >= 2 * 100_000 * 2000
    assert budget.megapixels >= 10_000
    assert budget.output_mb * MB >= 10_000 * 1_000_000  # a photograph of 1 MP is stored in less than that


def test_json_that_nests_or_counts_without_end_is_refused():
    for text in (
        "[" * 100_000,
        '{"a":' * 50_000,
        "1" * 5000,
        json.dumps({"a": [[[[]]]]}).replace("[]", "[" * 40 + "]" * 40),
    ):
        _not_json(text)
