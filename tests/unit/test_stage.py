"""A stage's folder: finished, resumed, refused, cleaned."""

import json

import pytest
import xxhash

from tokensieve.errors import UserError
from tokensieve.stage import FORMAT, Stage, read_json, read_manifest, write_json, write_manifest


def test_finished_stages_come_back_with_their_outputs(tmp_path):
    stage = Stage(tmp_path / "a", "m.json", {"x": (1, 2)})
    with stage.running():
        stage.finish(tokens=3)
    again = Stage(tmp_path / "a", "m.json", {"x": [1, 2]})
    assert again.finished and again.outputs == {"tokens": 3}
    assert read_json(tmp_path / "a" / "m.json")["seconds"] >= 0
    with pytest.raises(ValueError, match="finished already"), again.running():
        pass


def test_a_folder_of_another_recipe_names_the_first_difference(tmp_path):
    stage = Stage(tmp_path / "a", "m.json", {"model": {"width": 8, "depth": 2}})
    with stage.running():
        stage.finish()
    with pytest.raises(UserError, match=r"model\.depth is 2 there, 3 here"):
        Stage(tmp_path / "a", "m.json", {"model": {"width": 8, "depth": 3}})
    with pytest.raises(UserError, match="model.more is None there, 1 here"):
        Stage(tmp_path / "a", "m.json", {"model": {"width": 8, "depth": 2, "more": 1}})


def test_a_folder_with_files_of_something_else_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="holds files but no m.json"):
        Stage(tmp_path, "m.json", {})
    assert (tmp_path / "mine.txt").exists()


@pytest.mark.parametrize("resumable", [None, "part-*", "other-*"])
def test_after_a_failure_only_what_can_be_resumed_stays(tmp_path, resumable):
    stage = Stage(tmp_path / "a", "m.json", {})
    with pytest.raises(UserError), stage.running(resumable):
        (tmp_path / "a" / "part-1").write_text("x")
        raise UserError("no")
    assert (tmp_path / "a").exists() == (resumable == "part-*")


def test_damaged_manifests_are_named(tmp_path):
    (tmp_path / "m.json").write_text('{"inputs": ')
    with pytest.raises(UserError, match="m.json: damaged"):
        Stage(tmp_path, "m.json", {})


def sealed(data: bytes) -> bytes:
    """A manifest's bytes with 32 zeros in place of the checksum, as docs/formats.md has it."""
    at = data.rfind(b'"checksum": "') + len(b'"checksum": "')
    assert data[at : at + 32] == b"0" * 32
    return data[:at] + xxhash.xxh3_128_hexdigest(data).encode() + data[at + 32 :]


WHOLE = {"format": FORMAT, "inputs": {}, "finished": True, "outputs": {}}


@pytest.mark.parametrize("text", ["[]", "null", '"x"', "{}", '{"inputs": {}}', json.dumps(WHOLE)])
def test_manifests_without_a_checksum_are_damaged_or_of_another_version(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(UserError, match="m.json: damaged, or written by another version .*remove its folder"):
        Stage(tmp_path, "m.json", {"x": 1})


@pytest.mark.parametrize(
    "content",
    [
        {},
        {**WHOLE, "inputs": []},
        {**WHOLE, "outputs": None},
        {**WHOLE, "finished": 1},
        {key: WHOLE[key] for key in ("inputs", "finished", "outputs")},
        {key: WHOLE[key] for key in ("format", "inputs", "finished")},
        *({**WHOLE, "seconds": seconds} for seconds in ("1", None, True, -1, float("nan"), float("inf"), 10**400)),
    ],
)
def test_manifests_with_a_right_checksum_and_other_content_are_damaged(tmp_path, content):
    data = json.dumps({**content, "checksum": "0" * 32}).encode()
    (tmp_path / "m.json").write_bytes(sealed(data))
    with pytest.raises(UserError, match="m.json: damaged .not a mapping with format.*remove its folder"):
        Stage(tmp_path, "m.json", {"x": 1})


@pytest.mark.parametrize(
    "data",
    [
        b'["checksum": "%s"]' % (b"0" * 32),
        b'{"checksum": "%s"' % (b"0" * 32),
        b'{"a": "\xff", "checksum": "%s"}' % (b"0" * 32),
        b'{"a": %s, "checksum": "%s"}' % (b"9" * 5000, b"0" * 32),
        b'{"a": %s%s, "checksum": "%s"}' % (b"[" * 10_000, b"]" * 10_000, b"0" * 32),
    ],
)
def test_manifests_with_a_right_checksum_that_are_no_json_are_damaged(tmp_path, data):
    (tmp_path / "m.json").write_bytes(sealed(data))
    with pytest.raises(UserError, match=r"m.json: damaged \((?!not a mapping)[^\n]*remove its folder"):
        read_manifest(tmp_path / "m.json")


@pytest.mark.parametrize("version", [0, 2, "1", None, [1]])
def test_manifests_of_another_format_are_refused_politely(tmp_path, version):
    data = json.dumps({**WHOLE, "format": version, "new": 1, "checksum": "0" * 32}).encode()
    (tmp_path / "m.json").write_bytes(sealed(data))
    with pytest.raises(UserError) as caught:
        Stage(tmp_path, "m.json", {})
    assert f"m.json: format {version!r}, this version of tokensieve reads format 1; use the version that" in str(
        caught.value
    )


def test_every_changed_byte_of_a_manifest_is_found(tmp_path):
    path = tmp_path / "m.json"
    manifest = {"inputs": {"name": 'é "checksum": "'}, "finished": True, "seconds": 1.5, "outputs": {"tokens": 12}}
    write_manifest(path, manifest)
    data = path.read_bytes()
    found = read_manifest(path)
    assert found == {"format": FORMAT, **manifest, "checksum": found["checksum"]}
    assert data == sealed(data.replace(found["checksum"].encode(), b"0" * 32))
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        with pytest.raises(UserError, match="m.json: damaged"):
            read_manifest(path)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match="m.json: damaged"):
            read_manifest(path)
    path.write_bytes(data + b" ")
    with pytest.raises(UserError, match="edited by hand"):
        read_manifest(path)


def test_a_manifest_that_is_written_again_stays_sound(tmp_path):
    path = tmp_path / "m.json"
    write_manifest(path, {"inputs": {}, "finished": False, "outputs": {}})
    write_manifest(path, read_manifest(path) | {"finished": True})
    assert read_manifest(path)["finished"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_manifest_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "m.json").mkdir()
    with pytest.raises(UserError, match=r"m\.json: cannot read \(Is a directory\)"):
        read_manifest(tmp_path / "m.json")


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError])
def test_seconds_count_on_after_an_interruption(tmp_path, monkeypatch, error):
    now = [0.0]
    monkeypatch.setattr("tokensieve.stage.time.monotonic", lambda: now[0])
    for spent, total in ((5.0, 5.0), (2.0, 7.0)):
        stage = Stage(tmp_path / "a", "m.json", {})
        with pytest.raises(error), stage.running(resumable="part"):
            (tmp_path / "a" / "part").touch()
            now[0] += spent
            raise error
        manifest = read_json(tmp_path / "a" / "m.json")
        assert not manifest["finished"] and manifest["seconds"] == total
        now[0] += 100  # nobody works
    stage = Stage(tmp_path / "a", "m.json", {})
    with stage.running():
        now[0] += 1
        stage.finish(x=1)
    found = read_manifest(tmp_path / "a" / "m.json")
    del found["format"], found["checksum"]
    assert found == {"inputs": {}, "finished": True, "seconds": 8.0, "outputs": {"x": 1}}


def test_only_the_main_process_writes_seconds(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(KeyboardInterrupt), Stage(tmp_path / "a", "m.json", {}).running():
        raise KeyboardInterrupt
    assert not (tmp_path / "a").exists()


def test_a_json_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
