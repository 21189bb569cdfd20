"""What a worker that follows sees of the chief's folder, and that it writes nothing there."""

import pytest

from secateur.runs import RunFolder, RunFolderError
from secateur.runs.followed import FollowedFolder, FollowedLog


def test_a_follower_reads_what_the_chief_records_and_writes_nothing(tmp_path):
    with RunFolder(tmp_path, {"arch": "a", "gpu_id": 0}, ["gpu_id"]) as chief:
        with FollowedFolder(tmp_path, {"arch": "a", "gpu_id": 1}, ["gpu_id"]) as follower:
            follower.read()
            assert follower.steps() == []
            chief.step("train", "a.bin", lambda path: path.write_bytes(b"a") and None)
            chief.save_checkpoint("tune", {}, {"epoch": 1})
            chief.path("checkpoint_tune-000002.pkl").write_bytes(b"not all of it is seen here yet")
            before = {path: path.read_bytes() for path in tmp_path.iterdir()}
            follower.read()
            assert follower.steps() == ["train"] and follower.load_checkpoint("tune").facts == {"epoch": 1}
            follower.write_json("a.json", {})
            follower.append("a.jsonl", {})
            follower.save_checkpoint("tune", {}, {"epoch": 2})
            follower.drop_checkpoints("tune")
            follower.forget(["train"])
            follower.discard("b.bin", lambda path: path.write_bytes(b"b"))
            FollowedLog(follower).log(1, loss=2.0)
            FollowedLog(follower).truncate("train", 0)
            assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_follower_of_other_options_or_without_the_folder_says_so(tmp_path):
    with pytest.raises(RunFolderError, match="a disk that they share"):
        FollowedFolder(tmp_path / "elsewhere", {}).read()
    with RunFolder(tmp_path, {"arch": "a"}), pytest.raises(RunFolderError, match="arch='a' there"):
        FollowedFolder(tmp_path, {"arch": "b"}).read()
