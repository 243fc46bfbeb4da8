"""Names of files without their folders, against a search through all ends of a path."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qverify.files.names import file_name, short_names, without_folders

PARTS = st.sampled_from(["a", "b", "net.onnx", "x y"])
PATHS = st.lists(PARTS, min_size=1, max_size=4)


@given(paths=st.lists(PATHS, max_size=5))
def test_a_short_name_is_the_shortest_end_that_no_other_path_has(paths: list[list[str]]) -> None:
    names = short_names(["/" + "/".join(parts) for parts in paths])
    for number, (own, name) in enumerate(zip(paths, names, strict=True)):
        kept = name.split("/")
        assert own[len(own) - len(kept) :] == kept
        others = paths[:number] + paths[number + 1 :]
        apart = [k for k in range(1, len(own) + 1) if all(own[-k:] != other[-k:] for other in others)]
        assert len(kept) == (min(apart) if apart else len(own))


@given(parts=PATHS, root=st.sampled_from(["", "/", "C:\\", "\\\\host\\share\\"]))
def test_a_file_name_is_the_last_part_on_every_system(parts: list[str], root: str) -> None:
    between = "\\" if "\\" in root else "/"
    assert file_name(root + between.join(parts)) == parts[-1]


@given(folders=st.lists(st.sampled_from(["home", "me", "data"]), min_size=1), name=st.sampled_from(["m.onnx", "x"]))
def test_no_folder_is_left_in_a_text(folders: list[str], name: str) -> None:
    for start in ("/", "~/"):
        path = start + "/".join(folders) + "/" + name
        assert without_folders(f"cannot read {path}: it is not there") == f"cannot read {name}: it is not there"
        assert without_folders(f"({path!r})") == f"({name!r})"
    relative = "/".join(folders) + "/" + name
    assert without_folders(f"see {relative}") == f"see {relative}"
    assert without_folders(f"see {relative}", [relative]) == f"see {name}"


def test_of_known_paths_the_longer_one_counts() -> None:
    assert without_folders("my dir/sub/m.onnx", ["my dir/sub", "my dir/sub/m.onnx"]) == "m.onnx"
