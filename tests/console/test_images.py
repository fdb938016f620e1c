"""Images in the console: those of changed test rows, and those that people show a version when they try it out."""

import base64
import io
import json
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from html import unescape
from pathlib import Path

import pytest
from image_packages import SHADES, image_package, picture, seeing_settings
from PIL import Image
from small_loop import OPS, SECTIONS, SITE, SmallLoop, learn, promote
from small_service import Server, served_loop
from vision_models import llava

from components.audit import log
from components.promotion import candidates
from components.tasks.images import MAX_IMAGE_BYTES, MAX_PER_ROW, Picture
from components.tasks.snapshot import load_snapshot
from lcia.cli.main import main
from lcia.inference import ask as answering
from lcia.inference.process import _Versions

pytestmark = pytest.mark.slow

ASKED = "How light is it?"


@pytest.fixture(scope="session")
def seen_loop(tmp_path_factory: pytest.TempPathFactory) -> SmallLoop:
    """A task of two images a row in use; a version waits that learnt the opposite and so changed answers."""
    folder = tmp_path_factory.mktemp("seen")
    (folder / "zenml.yaml").write_text(seeing_settings(llava(folder / "llava"), SECTIONS))
    loop = SmallLoop(folder / "home", folder / "zenml.yaml", folder / "packages")
    instance = loop.open()
    learn(instance, image_package(loop.packages / "shade", each=2, kept=0))
    promote(instance)
    opposite = image_package(loop.packages / "tone", first=1000, each=2, swapped=True, kept=0)
    assert learn(instance, opposite)["state"] == "candidate"
    return loop


@pytest.fixture
def server(seen_loop: SmallLoop, tmp_path: Path) -> Server:
    return served_loop(seen_loop.copy(tmp_path))


@pytest.fixture(scope="module")
def asked(seen_loop: SmallLoop, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A service whose process that answers is kept between tests."""
    return served_loop(seen_loop.copy(tmp_path_factory.mktemp("asked")))


def files_of(server: Server, task: str, split: str = "test") -> dict[str, list[Path]]:
    """Image files of each row of a package, by row id: as the owner wrote them, read without the store."""
    package = server.loop.packages / task
    lines = [json.loads(line) for line in (package / f"{split}.jsonl").read_text().splitlines()]
    names = [row["image"] if isinstance(row["image"], list) else [row["image"]] for row in lines]
    with server.instance.db.read() as connection:
        version = candidates.get(connection, server.instance.assistant, 2)
    entry = next(one for one in server.instance.pool(version.digest).tasks() if one.name.startswith(task))
    rows = load_snapshot(server.instance.store, entry.task).rows(split)
    return {row.id: [package / name for name in shown] for row, shown in zip(rows, names, strict=True)}


def digest_of(file: Path) -> str:
    return Picture.of(file.read_bytes()).digest


def looks(server: Server) -> list[tuple[str, Mapping[str, object]]]:
    with server.instance.db.read() as connection:
        entries = log.entries(connection)
    return [(one.actor.name, one.details) for one in entries if one.action == "flips.seen"]


def changed(server: Server) -> dict[str, list[str]]:
    """Digests of the images of each changed row, by row id, as the API gives them."""
    flips = server.ask("approver", "flips", version="2").json()["flips"]
    assert flips
    return {flip["row"]: flip["images"] for flip in flips}


def test_each_changed_row_shows_its_images_in_order(server: Server) -> None:
    server.sign_in("approver")
    page = server.client.get("/versions/2/flips")
    assert page.status_code == 200
    found = re.findall(
        r'<a href="([^"]+)"><img class="shown" src="([^"]+)" loading="lazy" alt="image (\d) of 2 of row (\w{12})"',
        page.text,
    )
    files = files_of(server, "shade")
    rows = dict.fromkeys(row for _, _, _, row in found)
    assert rows.keys() == {row[:12] for row in changed(server)}
    assert [int(n) for _, _, n, _ in found] == [1, 2] * len(rows)
    for whole, address, n, row in found:
        assert whole == address
        got = server.client.get(address, headers={"accept": "image/avif,image/png,*/*"})
        file = next(shown for name, shown in files.items() if name.startswith(row))[int(n) - 1]
        assert got.status_code == 200
        assert got.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(got.content)).convert("RGB").tobytes() == Image.open(file).convert("RGB").tobytes()
        assert got.headers["x-content-type-options"] == "nosniff"
        assert got.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'; sandbox"
        assert got.headers["cache-control"] == "private"
    assert "img-src 'self';" in page.headers["content-security-policy"]


def test_images_are_for_those_who_may_read_the_rows(server: Server) -> None:
    digest = next(iter(changed(server).values()))[0]
    address = f"/versions/2/flips/shade/{digest}"
    assert server.client.get(address).status_code == 401
    server.person(SITE.name, "approver")  # brought the task in
    server.person("elsewhere", "approver", site="other")
    before = looks(server)
    for name, status, words in (
        ("submitter", 403, "needs one of approver"),
        ("engineer", 403, "needs one of approver"),
        ("elsewhere", 403, "`read_rows` at site"),
        ("site", 403, "test rows are for those who approve"),
    ):
        server.sign_in(name)
        refused = server.client.get(address)
        assert (refused.status_code, refused.headers["content-type"][:9]) == (status, "text/html"), name
        assert words in refused.text
        assert server.ask(name, "image", version="2", task="shade", image=digest).status_code == status
    assert looks(server) == before
    with server.instance.db.read() as connection:
        denied = [one.actor.name for one in log.entries(connection) if one.action == "access.denied"]
    assert denied == ["submitter", "engineer", "elsewhere"]


def test_nothing_else_of_the_store_is_given(server: Server) -> None:
    rows = changed(server)
    files, store = files_of(server, "shade"), server.instance.store
    with server.instance.db.read() as connection:
        evidence = candidates.get(connection, server.instance.assistant, 2).evidence
    unchanged = [shown[0] for row, shown in files.items() if row not in rows]
    train, other = (next(iter(files_of(server, *one).values()))[0] for one in (("shade", "train"), ("tone", "test")))
    real = [evidence, *map(digest_of, (*unchanged[:1], train, other))]
    assert len(unchanged) > 0
    assert all(store.exists(digest) for digest in real)
    right = next(iter(rows.values()))[0]
    server.sign_in("approver")
    for version, task, digest in (
        *((2, "shade", digest) for digest in (*real, "0" * 64, "x", right[:12], "..%2f..", "%00")),
        (2, "tone", digest_of(other)),
        (2, "tone", right),
        (2, "nothing", right),
        (1, "shade", right),  # it changed no earlier task
        (99, "shade", right),
    ):
        got = server.client.get(f"/versions/{version}/flips/{task}/{digest}")
        assert (got.status_code, "There is no such page." in got.text) == (404, True), (version, task, digest)
    assert server.client.get(f"/versions/2/flips/shade/{right}").status_code == 200
    store.erase(right, "the owner took the data back")
    assert server.client.get(f"/versions/2/flips/shade/{right}").status_code == 404


def test_images_are_part_of_a_look_and_a_look_of_their_own_without_one(server: Server) -> None:
    server.person("second", "approver")
    digest = next(iter(changed(server).values()))[0]
    entered = len(looks(server))
    for _ in range(2):
        assert server.ask("second", "image", version="2", task="shade", image=digest).status_code == 200
    assert [(name, details["image"]) for name, details in looks(server)[entered:]] == [("second", digest)]
    assert server.ask("approver", "image", version="2", task="shade", image=digest).status_code == 200
    assert len(looks(server)) == entered + 1


def test_the_command_line_names_them_and_writes_them_into_its_page(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = changed(server)
    page = tmp_path / "flips.html"
    monkeypatch.setenv("LCIA_HOME", str(server.loop.home))
    monkeypatch.chdir(server.loop.config.parent)
    for more in ((), ("--html", str(page))):
        monkeypatch.setattr(sys, "argv", ["lcia", "flips", "2", "--as", OPS.name, *more])
        with pytest.raises(SystemExit, match="0"):
            main()
    told, html = capsys.readouterr().out, page.read_text(encoding="utf-8")
    for row, digests in rows.items():
        for n, digest in enumerate(digests, start=1):
            assert f"image {n} of 2: {digest[:12]}" in told
            content = re.search(rf'base64,([^"]+)"\s+alt="image {n} of 2 of row {row[:12]}"', html)[1]
            assert Picture.of(base64.b64decode(content)).digest == digest


# Trying it out

Files = list[tuple[str, tuple[str, bytes, str]]]


def sent(*files: tuple[str, bytes]) -> Files:
    return [("image", (name, content, "image/png")) for name, content in files]


@pytest.fixture
def ask(asked: Server) -> Callable[..., object]:
    csrf = asked.sign_in("auditor")

    def question(files: Files, script: bool = True, **fields: str) -> object:
        data = {"csrf": csrf, "before": "1", "after": "2", "instruction": ASKED, "input": "", **fields}
        headers = {"hx-request": "true"} if script else {}
        return asked.client.post("/try", data=data, files=files, headers=headers)

    return question


def answers_in(page: str) -> list[str]:
    found = re.findall(r'<p class="answer-text">(.*?)</p>', page, re.DOTALL)
    return [unescape(re.sub(r"<[^>]+>", "", one)) for one in found]


def test_both_versions_answer_about_the_images_that_were_sent(asked: Server, ask, tmp_path: Path) -> None:
    for shade, level in SHADES.items():
        file = tmp_path / f"{shade}.png"
        file.write_bytes(picture(level, 5000))
        part = ask(sent((file.name, file.read_bytes())))
        assert part.status_code == 200, part.text
        expected = [
            answering.ask(asked.instance, ASKED, None, number, base=False, images=[file])["answer"] for number in "12"
        ]
        assert answers_in(part.text) == expected
        assert f"{shade}.png (16 x 16 pixels, 1 kB)" in part.text
        assert "<img" not in part.text
    assert ask(sent(("", b"")), input="dark").status_code == 200  # a browser's field without a file


def test_nothing_of_an_image_is_left(asked: Server, ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    large = picture(100, 7, side=900)  # more than is held in memory while it comes in
    assert len(large) > 1024 * 1024
    objects = {file for file in asked.loop.home.rglob("*") if file.is_file() and "sha256" in file.parts}
    assert ask(sent(("large.png", large))).status_code == 200
    assert list(tmp_path.iterdir()) == []
    kept = [file for file in asked.loop.home.rglob("*") if file.is_file() and large[:4096] in file.read_bytes()]
    assert kept == []
    assert objects == {file for file in asked.loop.home.rglob("*") if file.is_file() and "sha256" in file.parts}


def test_the_process_that_answers_forgets_images(asked: Server) -> None:
    versions = _Versions(asked.instance.settings)
    shown = [Picture.of(picture(30, 1))]
    assert versions.answer(None, ASKED, None, shown)["group"] is None
    sight = answering.bench_of(asked.instance.settings, None).base.sight
    assert not sight._openings
    assert not sight.reader._blocks
    assert not sight.reader._prompts


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            sent(("notes.txt", b"no image at all")),
            "notes.txt: bytes of another kind, expected a whole PNG",
        ),
        (sent(("cut.png", picture(30, 1)[:-20])), "cut.png: a PNG file that is cut off"),
        (sent(("big.png", b"x" * (MAX_IMAGE_BYTES + 1))), f"big.png: {MAX_IMAGE_BYTES + 1} bytes, expected at most"),
        (sent(*[("a.png", picture(30, 1))] * (MAX_PER_ROW + 1)), "there are 9 images, expected at most 8"),
        (
            sent(('"><script>alert(1)</script>\u202e.png', b"?")),
            "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e.png: ",
        ),
        (sent(("good.png", picture(30, 1)), ("bad.png", b"?")), "bad.png: bytes of another kind"),
    ],
)
def test_what_is_no_image_is_refused_in_place_and_what_was_typed_stays(ask, files: Files, words: str) -> None:
    part = ask(files)
    assert part.status_code == 400
    assert words in part.text
    assert "<html" not in part.text
    page = ask(files, script=False, instruction="Tell <b>me</b>.")
    assert page.status_code == 400
    assert words in page.text
    assert "Tell &lt;b&gt;me&lt;/b&gt;.</textarea>" in page.text
    assert "<script>alert" not in page.text


def test_hostile_names_are_shown_as_text(ask) -> None:
    part = ask(sent(('"><img src=x onerror=alert(1)>.png', picture(30, 1))))
    assert part.status_code == 200
    assert "<img" not in part.text
    assert "&gt;&lt;img src=x onerror=alert(1)&gt;.png (16 x 16 pixels" in part.text


def test_only_people_with_a_role_may_send_much(asked: Server, ask) -> None:
    asked.client.cookies.clear()
    assert ask(sent(("a.png", picture(30, 1)))).status_code in (204, 303, 401)
    asked.sign_in("auditor")
    limit = MAX_PER_ROW * MAX_IMAGE_BYTES + 1024 * 1024

    def chunks():
        yield b"x"

    for content, headers in ((b"", {"content-length": str(limit + 1)}), (chunks(), {})):
        refused = asked.client.post("/try", content=content, headers={"hx-request": "true", **headers})
        assert refused.status_code == 413
        assert f"bytes, expected at most {limit}" in refused.text
        assert 'class="refused"' in refused.text


def test_the_field_is_there_where_the_base_model_sees(asked: Server, shown: Server) -> None:
    for server, seeing in ((asked, True), (shown, False)):
        server.sign_in("auditor")
        page = server.client.get("/try").text
        assert ('<input type="file" name="image" multiple' in page) is seeing
        assert ('hx-encoding="multipart/form-data"' in page) is seeing


def test_a_base_model_that_reads_text_only_says_so(shown: Server) -> None:
    csrf = shown.sign_in("auditor")
    data = {"csrf": csrf, "before": "base", "after": "base", "instruction": ASKED}
    headers = {"hx-request": "true"}
    refused = shown.client.post("/try", data=data, files=sent(("a.png", picture(30, 1))), headers=headers)
    assert refused.status_code == 400
    assert "reads text only" in refused.text
