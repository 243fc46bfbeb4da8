"""Samples: what is read is right, and every bad input is refused in one sentence that says what to do."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from qverify import datasets
from qverify.cli import app as cli
from qverify.datasets import Samples, fit, load, load_train, select
from qverify.errors import DataError, UsageError
from qverify.layers import Dense, Input
from qverify.network import Network, margins
from qverify.verification.arguments import checked
from tests.support.networks import known_layers

PIXELS = np.arange(3 * 2 * 5, dtype=np.uint8).reshape(3, 2, 5)
LABELS = np.array([2, 0, 1], dtype=np.uint8)


def write(path: Path, **arrays: object) -> str:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


def network(shape: tuple[int, ...], outputs: int = 3) -> Network:
    size = int(np.prod(shape))
    weight = np.linspace(-1.0, 2.0, outputs * size).reshape(outputs, size)
    return Network((Input("in", (), shape), Dense("out", (0,), (outputs,), weight, np.ones(outputs))))


def samples(shape: tuple[int, ...], labels: list[int], name: str = "these") -> Samples:
    x = np.arange(len(labels) * np.prod(shape), dtype=np.float64).reshape(len(labels), *shape)
    return Samples(name, x, np.array(labels, dtype=np.int64), "0" * 64, "nowhere")


def refusal(path: str | Path) -> str:
    """The message with which `load` refuses a file: one sentence, ended by a full stop."""
    with pytest.raises(DataError) as caught:
        load(path)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message and ". " not in message
    return message


# --- what is read ---


def test_digits_are_the_uci_images_in_a_fixed_split() -> None:
    test, train = load("digits"), load_train("digits")
    assert test.x.shape == (599, 8, 8) and train.x.shape == (1198, 8, 8)
    assert test.x.dtype == np.float64 and test.y.dtype == np.int64 and len(test) == 599 and test.shape == (8, 8)
    assert test.sha256 == train.sha256 == hashlib.sha256(datasets.samples._DIGITS.read_bytes()).hexdigest()
    assert test.source == "shipped with qverify"
    for part in (test, train):
        assert part.x.min() == 0 and part.x.max() == 1 and (part.x * 16 == np.rint(part.x * 16)).all()
        assert np.bincount(part.y).min() > 50 and len(np.bincount(part.y)) == 10
    # The first rows of the UCI file: a 0, a 1 and a 2; every third image is a test image.
    assert train.y[:6].tolist() == [0, 1, 3, 4, 6, 7] and test.y[:3].tolist() == [2, 5, 8]
    assert (train.x[0, 0] * 16).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


def test_splits_of_digits_share_no_image() -> None:
    seen = {image.tobytes() for image in load_train("digits").x}
    assert not any(image.tobytes() in seen for image in load("digits").x)


def test_digits_are_small_and_state_their_licence() -> None:
    folder = Path(datasets.__file__).parent
    assert (folder / "digits.npz").stat().st_size < 60_000
    assert "CC BY 4.0" in (folder / "README.md").read_text(encoding="utf-8")


def test_npz_of_integers_is_divided_by_255_and_hashed(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.npz", x_test=PIXELS, y_test=LABELS)
    got = load(path)
    np.testing.assert_array_equal(got.x, PIXELS / 255.0)
    assert got.y.tolist() == [2, 0, 1] and got.y.dtype == np.int64
    assert (got.name, got.source) == ("mine", path)
    assert got.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_floats_and_booleans_are_taken_as_they_are(tmp_path: Path) -> None:
    x = PIXELS.astype(np.float32) * np.float32(-3.7)
    np.testing.assert_array_equal(load(write(tmp_path / "f.npz", x=x, y=LABELS)).x, x.astype(np.float64))
    assert set(load(write(tmp_path / "b.npz", x=PIXELS > 3, y=LABELS)).x.ravel()) == {0.0, 1.0}


def test_labels_of_shape_n_1_mean_n(tmp_path: Path) -> None:
    """As Keras hands them out; one sample alone, too."""
    got = load(write(tmp_path / "column.npz", x=PIXELS, y=LABELS[:, None]))
    assert got.y.tolist() == [2, 0, 1] and got.y.shape == (3,)
    assert load(write(tmp_path / "one.npz", x=PIXELS[:1], y=LABELS[:1, None])).y.tolist() == [2]
    train = load_train(write(tmp_path / "train.npz", x_train=PIXELS, y_train=LABELS[:, None].astype(np.int32)))
    assert train.y.tolist() == [2, 0, 1]


def test_x_test_is_preferred_to_x(tmp_path: Path) -> None:
    path = write(tmp_path / "both.npz", x=PIXELS[:1], y=LABELS[:1], x_test=PIXELS, y_test=LABELS)
    assert len(load(path)) == 3


def test_the_training_split_of_an_npz(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.npz", x=PIXELS, y=LABELS, x_train=PIXELS[:2] + 100, y_train=LABELS[:2])
    got = load_train(Path(path))
    np.testing.assert_array_equal(got.x, (PIXELS[:2] + 100) / 255.0)
    assert got.y.tolist() == [2, 0] and (got.name, got.source) == ("mine", path)
    with pytest.raises(DataError, match="must hold x_train and y_train, but holds x, y; rename its arrays"):
        load_train(write(tmp_path / "no.npz", x=PIXELS, y=LABELS))


def test_the_help_names_every_data_set() -> None:
    assert datasets.NAMES == ("digits", "mnist", "fashion-mnist", "cifar10")
    shown = CliRunner().invoke(cli.main, ["verify", "--help"], terminal_width=500).output  # no line breaks
    assert f" {', '.join(datasets.NAMES)}, or an .npz" in shown


def test_a_path_object_and_any_suffix_will_do(tmp_path: Path) -> None:
    write(tmp_path / "data.npz", x=PIXELS, y=LABELS)
    renamed = (tmp_path / "data.npz").rename(tmp_path / "data.bin")
    assert len(load(renamed)) == 3


# --- what is refused ---


def test_missing_file_unknown_name_and_directory(tmp_path: Path) -> None:
    assert "does not exist; give the path" in refusal(tmp_path / "none.npz")
    assert refusal("mnits") == (
        "There is no data set or file 'mnits';"
        " name 'digits', 'mnist', 'fashion-mnist', 'cifar10', or the path of an .npz file."
    )
    assert "is a directory; give the path of an .npz file in it" in refusal(tmp_path)
    with pytest.raises(DataError, match="no data set or file 'cifar'; name 'digits', 'mnist', 'fashion-mnist', 'cif"):
        load_train("cifar")
    with pytest.raises(DataError, match="does not exist; give the path"):
        load_train(tmp_path / "none.npz")


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "data.npz", x=PIXELS, y=LABELS)

    def deny(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", deny)  # root may read anything, so chmod would test nothing there
    assert "cannot be read (Permission denied); check its permissions" in refusal(path)


def test_not_an_npz(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("5,0,4")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "single.npy", PIXELS)
    for name in ("text.npz", "empty.npz", "single.npy"):
        assert "is not a readable .npz file; write it with numpy.savez" in refusal(tmp_path / name)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = Path(write(tmp_path / "whole.npz", x=PIXELS, y=LABELS)).read_bytes()
    cut = tmp_path / "cut.npz"
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        assert "not a readable .npz file" in refusal(cut)


def test_damage_anywhere_is_refused_or_harmless(tmp_path: Path) -> None:
    """Flipped bytes: CRC, headers, directory. Either the very same arrays come back or a DataError."""
    path = tmp_path / "damaged.npz"
    np.savez_compressed(path, x=PIXELS, y=LABELS)
    content, refused = path.read_bytes(), 0
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0x5A
        path.write_bytes(damaged)
        try:
            got = load(path)
        except DataError:
            refused += 1
        else:
            np.testing.assert_array_equal(got.x, PIXELS / 255.0)
            assert got.y.tolist() == LABELS.tolist()
    assert refused > len(content) / 2


def test_a_member_that_is_no_array(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "odd.npz", x=PIXELS))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y", "2 0 1")
    assert "y of" in refusal(path) and "is of type bytes" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "2 0 1")
        buffer = io.BytesIO()
        np.save(buffer, LABELS)
        archive.writestr("y.npy", buffer.getvalue())
    assert "x of" in refusal(path) and "not an array of real numbers" in refusal(path)


def test_missing_keys_lists_those_found(tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "keys.npz", images=PIXELS, y=LABELS))
    assert message.endswith("must hold x_test and y_test or x and y, but holds images, y; rename its arrays.")
    assert "but holds nothing" in refusal(write(tmp_path / "none.npz"))
    assert "but holds x_test, y;" in refusal(write(tmp_path / "mixed.npz", x_test=PIXELS, y=LABELS))


def test_pickled_objects_are_not_read(tmp_path: Path) -> None:
    boom = np.array([{"a": 1}, None, "b"], dtype=object)
    message = refusal(write(tmp_path / "objects.npz", x=PIXELS, y=boom))
    assert "holds pickled objects, which are not read; store plain number arrays" in message


BAD_LABELS = {
    "float": (
        LABELS.astype(float),
        "is of type float64; labels must be integers that number the classes from 0, here y.astype(int).",
    ),
    "float, not whole": (LABELS + 0.5, "is of type float64; labels must be integers that number the classes from 0."),
    "float column": (LABELS[:, None].astype(np.float32), "is of type float32; labels must be integers that number"),
    "text": (np.array(["a", "b", "c"]), "is of type <U1; labels must be integers"),
    "bool": (LABELS > 0, "is of type bool; labels must be integers"),
    "negative": (np.array([0, 1, -4]), "holds the negative label -4 at index 2; number the classes from 0"),
    "too large": (np.array([0, 1, 2**64 - 1], dtype=np.uint64), "holds the negative label"),
    "one-hot": (np.eye(3, dtype=int), "has shape (3, 3); store one class number for each sample (argmax, if one-hot)"),
    "one-hot floats": (np.eye(3), "(argmax, if one-hot): y.argmax(1)."),
    "one-hot booleans": (np.eye(3) > 0, "(argmax, if one-hot): y.argmax(1)."),
    "probabilities": (
        np.full((3, 2), 0.5),
        "has shape (3, 2); store one class number for each sample (argmax, if one-hot).",
    ),
    "row": (LABELS[None], "has shape (1, 3); store one class number for each sample (argmax, if one-hot)."),
    "scalar": (np.array(3), "has shape (); store one class number"),
    "short": (LABELS[:2], "holds 3 samples but 2 labels; store one label for each sample"),
    "none": (LABELS[:0], "holds 3 samples but 0 labels"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels(tmp_path: Path, case: str) -> None:
    labels, wording = BAD_LABELS[case]
    assert wording in refusal(write(tmp_path / "bad.npz", x=PIXELS, y=labels))


BAD_PIXELS = {
    "text": (np.array([["a"], ["b"], ["c"]]), "is not an array of real numbers"),
    "complex": (PIXELS * 1j, "is not an array of real numbers"),
    "one axis": (np.zeros(3), "has shape (3,); store the samples along the first of at least two axes"),
    "no samples": (PIXELS[:0], "is empty, of shape (0, 2, 5); store at least one sample"),
    "no pixels": (PIXELS[:, :0], "is empty, of shape (3, 0, 5)"),
    "wide": (PIXELS.astype(np.uint16) * 100, "holds integers from 0 to 2900, but integer pixels go from 0 to 255;"),
    "negative": (PIXELS.astype(int) - 1, "holds integers from -1 to 28, but integer pixels go from 0 to 255;"),
}


@pytest.mark.parametrize("case", BAD_PIXELS)
def test_bad_pixels(tmp_path: Path, case: str) -> None:
    pixels, wording = BAD_PIXELS[case]
    assert wording in refusal(write(tmp_path / "bad.npz", x=pixels, y=LABELS))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_counted_and_located(tmp_path: Path, value: float) -> None:
    x = PIXELS.astype(np.float32)
    x[1, 0, 3] = x[2, 1, 1] = value
    message = refusal(write(tmp_path / "nan.npz", x=x, y=LABELS))
    assert "holds 2 NaN or infinite values, the first at index (1, 0, 3); repair the data" in message


# --- ranges ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1:3", range(1, 3)),
        (":2", range(2)),
        ("3:", range(3, 5)),
        (":", range(5)),
        (" 0 : 5 ", range(5)),
        ("3", range(3)),
        ("5", range(5)),
        (" 1 ", range(1)),
        ("003", range(3)),
        (None, range(5)),
    ],
)
def test_select(text: str | None, expected: range) -> None:
    whole = samples((2, 2), [0, 1, 2, 1, 0])
    part, indices = select(whole, text)
    assert indices == expected
    np.testing.assert_array_equal(part.x, whole.x[list(expected)])
    assert part.y.tolist() == whole.y[list(expected)].tolist()
    assert (part.name, part.sha256, part.source) == (whole.name, whole.sha256, whole.source)


@pytest.mark.parametrize(
    ("text", "error", "wording"),
    [
        ("0:6", DataError, r"'0:6' reaches beyond these, which has 5 samples \(0:5\)"),
        ("5:", DataError, "reaches beyond these"),
        ("7:9", DataError, "reaches beyond these"),
        ("2:2", UsageError, "is empty; the first number must be smaller than the second"),
        ("3:1", UsageError, "is empty"),
        (":0", UsageError, "is empty"),
        ("-2:", UsageError, "is negative; count from 0, for example 0:5"),
        ("0:-1", UsageError, "is negative"),
        ("6", DataError, r"'6' reaches beyond these, which has 5 samples \(0:5\)"),
        ("0", UsageError, "'0' is empty; the first number must be smaller than the second, as in 0:5"),
        ("-5", UsageError, "'-5' is negative; count from 0, for example 0:5"),
        (" - 1", UsageError, "is negative"),
        ("1.5", UsageError, "is not of the form A:B; write for example 0:5, or N for the first N samples"),
        ("1e3", UsageError, "is not of the form A:B; write for example 0:5, or N for the first N samples"),
        ("+3", UsageError, "is not of the form"),
        ("9" * 5000, UsageError, "is not of the form"),
        ("all", UsageError, "is not of the form"),
        ("", UsageError, "is not of the form"),
        (" ", UsageError, "is not of the form"),
        ("0:4:2", UsageError, "is not of the form"),
        ("a:b", UsageError, "is not of the form"),
        ("1_0:20", UsageError, "is not of the form"),
        ("0:" + "9" * 5000, UsageError, "is not of the form"),
        ("\u0661:3", UsageError, "is not of the form"),
    ],
)
def test_select_refuses(text: str, error: type[Exception], wording: str) -> None:
    with pytest.raises(error, match=wording):
        select(samples((2, 2), [0, 1, 2, 1, 0]), text)


# --- against a network ---


@pytest.mark.parametrize(
    ("have", "want"),
    [
        ((2, 5), (2, 5)),
        ((2, 5), (1, 2, 5)),
        ((2, 5), (10,)),
        ((10,), (1, 2, 5)),
        ((2, 5, 1), (1, 2, 5)),
        ((1,), (1, 1)),
    ],
)
def test_fit_flattens_in_c_order(have: tuple[int, ...], want: tuple[int, ...]) -> None:
    mine = samples(have, [0, 2, 1])
    x, y = fit(mine, network(want))
    np.testing.assert_array_equal(x, mine.x.reshape(3, -1))
    assert y.tolist() == [0, 2, 1]


def test_fit_states_both_shapes() -> None:
    with pytest.raises(DataError, match=r"these have shape \(2, 5\), but the network reads \(3, 4\)"):
        fit(samples((2, 5), [0]), network((3, 4)))


def test_fit_does_not_scramble_images_whose_axes_are_in_another_order() -> None:
    with pytest.raises(
        DataError, match=r"shape \(4, 4, 3\), but the network reads \(3, 4, 4\); bring the axes into its"
    ):
        fit(samples((4, 4, 3), [0]), network((3, 4, 4)))


@pytest.mark.parametrize(
    ("have", "want", "how"),
    [
        ((4, 5, 3), (3, 4, 5), "x.transpose(0, 3, 1, 2)"),
        ((3, 4, 5), (4, 5, 3), "x.transpose(0, 2, 3, 1)"),
        ((4, 4, 3), (3, 4, 4), "x.transpose(0, 3, 1, 2)"),
        ((7, 2), (2, 7), "x.transpose(0, 2, 1)"),
        ((4, 5, 3), (3, 5, 4), None),
        ((2, 2, 15), (3, 4, 5), None),
    ],
)
def test_fit_says_how_to_bring_the_colours_to_their_place(
    have: tuple[int, ...], want: tuple[int, ...], how: str | None
) -> None:
    mine, reads = samples(have, [0, 1]), network(want)
    with pytest.raises(DataError, match="bring the axes into its order") as caught:
        fit(mine, reads)
    assert (f"order, by {how}." if how else "into its order.") in str(caught.value)
    if how:
        fit(Samples("turned", eval(how, {"x": mine.x}), mine.y, "", ""), reads)


def test_the_way_out_of_a_single_logit_answers_the_same() -> None:
    one = network((2, 5), outputs=1)
    x, y = samples((2, 5), [0, 1, 1]).x - 9.0, np.array([0, 1, 1])
    with pytest.raises(
        DataError, match=r"1 output; a classifier needs at least 2: .* two outputs, -z and z, by its weights"
    ):
        fit(Samples("two", x, y, "", ""), one)
    layer = known_layers(one)[1]
    weight, bias = (np.concatenate([-numbers, numbers]) for numbers in (layer.weight, layer.bias))
    two = Network((one.layers[0], Dense("out", (0,), (2,), weight, bias)))
    flat, _ = fit(Samples("two", x, y, "", ""), two)
    np.testing.assert_array_equal(two.evaluate(flat).argmax(1), one.evaluate(flat)[:, 0] > 0)
    np.testing.assert_allclose(margins(two.evaluate(flat), np.ones(3, int)), 2 * one.evaluate(flat)[:, 0])


def test_fit_refuses_labels_without_an_output() -> None:
    with pytest.raises(DataError, match="The largest label of these is 3, but the network has 3 outputs; labels count"):
        fit(samples((2, 5), [0, 3, 1]), network((2, 5)))


def test_fit_refuses_a_single_output() -> None:
    with pytest.raises(DataError, match="The network has 1 output; a classifier needs at least 2"):
        fit(samples((2, 5), [0]), network((2, 5), outputs=1))


@pytest.mark.parametrize("count", [1, 3])
def test_labels_of_a_python_caller_may_have_a_second_axis(count: int) -> None:
    x = samples((2, 5), [0] * count).x
    _, y = checked(network((2, 5)), x, np.array([[2], [0], [1]])[:count])
    assert y.tolist() == [2, 0, 1][:count]
    with pytest.raises(DataError, match=r"labels have shape .* give \(3,\) integers from 0"):
        checked(network((2, 5)), samples((2, 5), [0, 1, 2]).x, np.eye(3, dtype=int))


def test_import_needs_neither_torch_nor_onnx() -> None:
    code = "import sys, qverify.datasets; sys.exit(bool({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
