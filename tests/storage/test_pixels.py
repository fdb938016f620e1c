"""Images in the object store: fewer bytes on disk, the same names and the same pixels as ever."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.storage import pixels
from components.storage.objects import ObjectCorrupt, ObjectStore, digest_of

RAMP = np.indices((300, 400)).sum(0, dtype=np.uint8)[:, :, None].repeat(3, 2)


def ppm(values: np.ndarray) -> bytes:
    return b"P6\n%d %d\n255\n" % (values.shape[1], values.shape[0]) + values.tobytes()


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path}/objects")


def file_of(store: ObjectStore, digest: str) -> Path:
    return Path(store.url.removeprefix("file://")) / "sha256" / digest[:2] / digest


def test_an_image_is_kept_compressed_under_the_digest_of_its_pixels(store):
    content = ppm(RAMP)
    digest = store.put(content)
    assert digest == digest_of(content)
    assert store.size(digest) == file_of(store, digest).stat().st_size < len(content) / 20
    assert store.get(digest) == content
    before = file_of(store, digest).read_bytes()
    assert store.put(content) == digest
    assert file_of(store, digest).read_bytes() == before


def test_images_of_earlier_releases_stay_readable_and_are_left_alone(store):
    content = ppm(RAMP)
    place = file_of(store, digest_of(content))
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    assert store.get(digest_of(content)) == content
    store.put(content)
    assert place.read_bytes() == content


def test_what_does_not_get_smaller_or_is_no_image_is_stored_as_it_is(store):
    noise = ppm(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    for content in (noise, b"P6\n4 4\n255\nshort", b"P6\n", b"", b"RIFF....WEBPVP8L" + bytes(40)):
        digest = store.put(content)
        assert store.get(digest) == content
        assert store.size(digest) <= len(content)


def test_a_damaged_or_exchanged_image_is_corrupt(store):
    digest = store.put(ppm(RAMP))
    place = file_of(store, digest)
    whole = place.read_bytes()
    for other in (whole[:-20], whole[:30] + bytes(len(whole) - 30), pixels.pack(ppm(255 - RAMP)), b""):
        place.write_bytes(other)
        with pytest.raises(ObjectCorrupt):
            store.get(digest)
    place.write_bytes(b"damaged")
    store.put(ppm(RAMP))
    assert place.read_bytes() == whole


def test_a_file_of_more_pixels_than_are_ever_packed_is_not_decoded(monkeypatch):
    made = io.BytesIO()
    Image.new("RGB", (8000, 8000)).save(made, "WEBP", lossless=True, quality=0, method=0)
    assert made.tell() < 10_000
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded"))
    assert pixels.unpack(made.getvalue()) == made.getvalue()


def test_a_file_is_stored_as_the_same_object_without_being_held(store, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"rows\n" * 1000)
    digest = store.put_file(file)
    assert digest == digest_of(file.read_bytes())
    assert store.get(digest) == file.read_bytes()
    file_of(store, digest).write_bytes(b"damaged")
    assert store.put_file(file) == digest
    assert store.get(digest) == file.read_bytes()
