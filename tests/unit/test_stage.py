"""A stage's folder: finished, resumed, refused, cleaned."""

import json

import pytest

from tokensieve.errors import UserError
from tokensieve.stage import Stage, read_json, write_json


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


@pytest.mark.parametrize(
    "text", ["[]", "null", '"x"', "{}", '{"inputs": {}}', '{"inputs": [], "finished": true, "outputs": {}}']
)
def test_manifests_that_are_other_json_are_damaged(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(UserError, match="m.json: damaged .*remove its folder"):
        Stage(tmp_path, "m.json", {"x": 1})


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
    assert read_json(tmp_path / "a" / "m.json") == {"inputs": {}, "finished": True, "seconds": 8.0, "outputs": {"x": 1}}


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
