"""Images in packages: hostile files are refused with place and field, pixels alone are kept."""

import io
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.settings import PackageSettings
from components.storage.objects import ObjectStore, digest_of
from components.tasks import images
from components.tasks.containers import open_package, pack
from components.tasks.images import ImageRefused, Picture, parse_pixels, plain_pixels
from components.tasks.isolation import take
from components.tasks.package import Package, read_package
from components.tasks.problems import PackageError
from components.tasks.quarantine import package_digest
from components.tasks.snapshot import load_snapshot, take_snapshot, without_rows

INSTRUCTION = "What is shown?"
NOISE = np.random.default_rng(0).integers(0, 256, (23, 17, 3), dtype=np.uint8)


def file_of(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    made = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(made, kind, **options)
    return made.getvalue()


def picture(number: int) -> np.ndarray:
    """A different small image for each number."""
    return np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)


@pytest.fixture
def image_package(make_package):
    """A package whose rows show one image each; `files` replaces the bytes of image files."""

    def make(name: str = "package", files: dict[str, bytes] | None = None, **splits: list) -> Path:
        rows, made = {}, {}
        for start, (split, count) in enumerate({"train": 6, "validation": 3, "test": 4}.items()):
            numbers = range(100 * start, 100 * start + count)
            rows[split] = [
                {"instruction": INSTRUCTION, "output": f"thing {n}", "image": f"images/{n}.png"} for n in numbers
            ]
            made |= {f"images/{n}.png": file_of(picture(n)) for n in numbers}
        folder = make_package(name, **{**rows, **splits})
        for place, content in {**made, **(files or {})}.items():
            (folder / place).parent.mkdir(exist_ok=True)
            (folder / place).write_bytes(content)
        return folder

    return make


def refused(folder: Path) -> list[str]:
    with pytest.raises(PackageError) as caught:
        read_package(folder)
    return [str(problem) for problem in caught.value.problems]


def test_pixels_survive_and_nothing_else_does():
    secret = b"GPS 52.5 N 13.4 E"
    exif = Image.Exif()
    exif[0x010E] = secret.decode()
    file = file_of(NOISE, exif=exif, pnginfo=None) + b"<script>behind the end</script>"
    assert secret in file
    content = plain_pixels(file)
    assert secret not in content
    assert b"script" not in content
    assert np.array_equal(parse_pixels(content), NOISE)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), NOISE)  # any viewer opens it


def test_a_png_file_of_an_image_has_its_pixels():
    shown = Picture.of(file_of(NOISE))
    assert Picture.of(shown.png()) == shown


def test_the_same_pixels_in_other_files_are_the_same_image():
    files = [file_of(NOISE), file_of(NOISE, compress_level=0), file_of(NOISE, "WEBP", lossless=True)]
    assert len(set(files)) == 3
    assert len({Picture.of(file).digest for file in files}) == 1


def test_an_image_is_stored_upright_and_opaque():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned = parse_pixels(plain_pixels(file_of(NOISE, exif=exif)))
    assert np.array_equal(turned, np.rot90(NOISE, -1))
    clear = Image.fromarray(np.dstack([NOISE, np.zeros(NOISE.shape[:2], np.uint8)]), "RGBA")
    assert (parse_pixels(plain_pixels(file_of(clear))) == 255).all()
    grey = Image.fromarray(NOISE[:, :, 0])
    assert np.array_equal(parse_pixels(plain_pixels(file_of(grey)))[:, :, 1], NOISE[:, :, 0])
    assert plain_pixels(file_of(Image.fromarray(NOISE).convert("CMYK"), "JPEG")).startswith(b"P6\n17 23\n255\n")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@settings(max_examples=60, deadline=None)
@given(cut=st.integers(min_value=0, max_value=4000))
def test_a_file_cut_anywhere_is_refused(kind, cut):
    file = file_of(NOISE, kind)
    with pytest.raises(ImageRefused):
        plain_pixels(file[: min(cut, len(file) - 1)])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@settings(max_examples=150, deadline=None)
@given(place=st.integers(min_value=0, max_value=4000), byte=st.integers(min_value=0, max_value=255))
def test_a_damaged_file_is_refused_or_an_image_but_never_another_error(kind, place, byte):
    file = bytearray(file_of(NOISE, kind))
    file[place % len(file)] = byte
    try:
        parse_pixels(plain_pixels(bytes(file)))
    except ImageRefused as error:
        refusal = error
    else:
        return
    assert "0x" not in refusal.seen  # no address in memory


def bomb(side: int) -> bytes:
    """A PNG of side x side pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + b"\x01\x00\x00\x00\x00"
    data = zlib.compress(bytes((side // 8 + 1) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_what_is_too_large_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageRefused, match="8200 x 8200 pixels"):
        plain_pixels(bomb(8200))
    with pytest.raises(ImageRefused, match="400000000 pixels"):
        plain_pixels(bomb(20000))
    with pytest.raises(ImageRefused, match="bytes"):
        plain_pixels(bytes(images.MAX_IMAGE_BYTES + 1))


def test_other_formats_animations_and_deep_pixels_are_refused():
    frames = [Image.fromarray(picture(n)) for n in range(3)]
    for file, words in (
        (file_of(NOISE, "GIF"), "bytes of another kind"),
        (file_of(NOISE, "TIFF"), "bytes of another kind"),
        (file_of(NOISE, "PPM"), "bytes of another kind"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "bytes of another kind"),
        (b"", "bytes of another kind"),
        (file_of(frames[0], "PNG", save_all=True, append_images=frames[1:]), "an animation of 3 frames"),
        (file_of(frames[0], "WEBP", save_all=True, append_images=frames[1:]), "an animation of 3 frames"),
        (file_of(Image.fromarray(NOISE[:, :, 0].astype(np.uint16) * 256)), "pixels of mode I;16"),
    ):
        with pytest.raises(ImageRefused, match=words):
            plain_pixels(file)


def test_a_package_with_images_becomes_a_snapshot_and_is_read_back(image_package, store):
    package = read_package(image_package())
    assert isinstance(package, Package)
    snapshot = take_snapshot(package, store)
    loaded = load_snapshot(store, snapshot.digest)
    assert loaded.has_images
    rows = loaded.rows("train")
    assert rows == package.splits["train"]
    assert np.array_equal(rows[0].images[0].pixels(), picture(0))
    assert rows[0].to_row() == {
        "instruction": INSTRUCTION,
        "output": "thing 0",
        "image": [digest_of(plain_pixels(file_of(picture(0))))],
    }
    assert rows[0].question == (INSTRUCTION, "", rows[0].images[0].digest)
    left = without_rows(loaded, {("train", rows[0].id)}, store)
    assert left.rows("train") == rows[1:]


def test_two_packages_with_the_same_pixels_have_one_digest(image_package, store):
    first = take_snapshot(read_package(image_package("png")), store)
    numbers = (*range(6), *range(100, 103), *range(200, 204))
    webp = {f"images/{n}.png": file_of(picture(n), "WEBP", lossless=True) for n in numbers}
    assert take_snapshot(read_package(image_package("webp", webp)), store).digest == first.digest
    assert take_snapshot(read_package(image_package("other", {"images/0.png": file_of(NOISE)})), store) != first


def test_several_images_in_a_row_keep_their_order(image_package):
    row = {"instruction": INSTRUCTION, "output": "x", "image": ["images/1.png", "images/0.png", "images/1.png"]}
    package = read_package(image_package(train=[row, *rows_of(range(2, 6))]))
    shown = package.splits["train"][0].images
    assert [np.array_equal(one.pixels(), picture(n)) for one, n in zip(shown, (1, 0, 1), strict=True)] == [True] * 3


def rows_of(numbers: range) -> list[dict]:
    return [{"instruction": INSTRUCTION, "output": "thing", "image": f"images/{n}.png"} for n in numbers]


@pytest.mark.parametrize(
    ("image", "field", "words"),
    [
        ("images/none.png", "image", "'images/none.png': no such file"),
        ("../outside.png", "image", "leaves the package"),
        ("/etc/passwd.png", "image", "absolute"),
        ("images\\0.png", "image", "not written with /"),
        ("http://example.org/0.png", "image", "absolute or not written with /"),
        ("task.yaml", "image", "another kind of file"),
        ("images/bad.png", "image", "a PNG file that is cut off after 60 bytes"),
        ("", "image", "a name of 0 characters"),
        (7, "image", "7"),
        ([], "image", "0 images"),
        (["images/0.png"] * 9, "image", "9 images"),
        (["images/0.png", "images/none.png"], "image[1]", "no such file"),
        (["images/0.png", {"bytes": "x"}], "image[1]", "bytes"),
        (None, "image", "None"),
    ],
)
def test_a_bad_image_is_refused_with_file_line_and_field(image_package, image, field, words):
    row = {"instruction": INSTRUCTION, "output": "x", "image": image}
    cut = file_of(picture(9))[:60]
    folder = image_package(files={"images/bad.png": cut}, train=[*rows_of(range(6)), row])
    first = refused(folder)[0]
    assert first.startswith(f"train.jsonl:7 {field}: seen ")
    assert words in first


def test_links_strangers_and_too_many_images_are_refused(image_package, tmp_path, monkeypatch):
    outside = tmp_path / "outside.png"
    outside.write_bytes(file_of(NOISE))
    linked = image_package("linked")
    (linked / "images" / "0.png").unlink()
    (linked / "images" / "0.png").symlink_to(outside)
    assert refused(linked) == ["'images/0.png': seen a link, expected regular files with plain names"]
    (problem,) = refused(image_package("stranger", {"images/more.png": file_of(NOISE)}))
    assert problem.startswith("images/more.png: seen an image that no row names")
    monkeypatch.setattr("components.tasks.package.MAX_IMAGES", 12)
    assert "more than 12 images" in refused(image_package("many"))[0]


def test_the_same_image_in_test_and_train_is_a_leak_but_another_image_is_none(image_package):
    folder = image_package("leak", {"images/200.png": file_of(picture(3), "WEBP", lossless=True)})
    (problem,) = refused(folder)
    assert problem.startswith("test.jsonl:1 instruction+input+image: seen the question of train.jsonl:4")


def test_a_container_and_the_stored_package_hold_the_images(image_package, tmp_path, store):
    folder = image_package()
    content, _ = pack(folder)
    (tmp_path / "package.zip").write_bytes(content)
    with open_package(tmp_path / "package.zip", tmp_path / "scratch") as inside:
        assert read_package(inside).splits == read_package(folder).splits
        assert package_digest(inside) == package_digest(folder)
    digest = take(folder, store, PackageSettings(), tmp_path / "scratch").package
    again = store.get_folder(digest, tmp_path / "again")
    assert read_package(again).splits == read_package(folder).splits


def test_an_image_that_changes_while_a_package_is_taken_is_noticed(image_package, store):
    folder = image_package()
    package = read_package(folder)
    (folder / "images" / "0.png").write_bytes(file_of(NOISE))
    with pytest.raises(Exception, match="changed while it was read"):
        take_snapshot(package, store)


def test_rows_without_answers_show_images_too(image_package, store):
    rows = [{"instruction": INSTRUCTION, "image": "images/900.png"}]
    folder = image_package(files={"images/900.png": file_of(picture(900))}, unlabelled=rows)
    snapshot = load_snapshot(store, take_snapshot(read_package(folder), store).digest)
    (row,) = snapshot.unlabelled_rows()
    assert np.array_equal(row.images[0].pixels(), picture(900))
    assert row.with_answer("x").images == row.images


def test_a_text_task_has_the_digest_it_had_before_images(make_package, tmp_path):
    """A golden value: a new field must not change what is there."""
    snapshot = take_snapshot(read_package(make_package()), ObjectStore(f"file://{tmp_path}/s"))
    assert snapshot.digest == GOLDEN
    assert not snapshot.has_images
    assert "image" not in json.dumps(snapshot.rows("train")[0].to_row())


GOLDEN = "0172c472dd5c9f7d1557baaf8d03b68e93c33404af68f4310b7c9b3170e2779d"
