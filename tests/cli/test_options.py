"""The types of options: which words they take, and what they say to others."""

from __future__ import annotations

from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qverify.cli.options import FAILING, split_list, stacked
from qverify.cli.words import BitWidth, Factor, OneOf
from qverify.errors import UsageError


@pytest.mark.parametrize(("text", "value"), [("8", 8), (" 12", 12), ("-1", -1), (5, 5)])
def test_a_bit_width_is_a_number(text: Any, value: int) -> None:
    assert BitWidth("there are others").convert(text, None, None) == value


@pytest.mark.parametrize("text", ["6,8", "6:8", "4-8", " 4 - 8 ", "6, 8, 10", "4;5", ":8", "6,"])
def test_several_bit_widths_are_sent_where_they_are_taken(text: str) -> None:
    with pytest.raises(UsageError, match=r"takes one bit-width here, not .*; qverify sweep takes several\.$"):
        BitWidth("qverify sweep takes several").convert(text, None, None)


@pytest.mark.parametrize("text", ["x", "8.5", "", "8 bits", "6,x"])
def test_no_bit_width_at_all_is_an_error_of_click(text: str) -> None:
    with pytest.raises(click.BadParameter):
        BitWidth("there are others").convert(text, None, None)


@given(above=st.integers(1, 10**6), below=st.integers(1, 10**6))
def test_a_factor_is_a_number_or_a_quotient(above: int, below: int) -> None:
    assert Factor().convert(f"{above}/{below}", None, None) == above / below
    assert Factor().convert(f"{above}.5", None, None) == above + 0.5


@pytest.mark.parametrize(
    "text", ["0", "-1", "1/0", "0/1", "-1/-2", "1/2/3", "nan", "inf", "1/inf", "1e-300/1e300", "", "a/2"]
)
def test_no_other_factor_is_taken(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Factor().convert(text, None, None)


def test_one_word_and_not_a_list_of_them() -> None:
    option = click.Option(["--method"], type=OneOf(["auto", "ibp"]))
    assert option.type.convert("ibp", option, None) == "ibp"
    with pytest.raises(UsageError, match="--method takes one of auto, ibp, not 'auto,ibp'; a plan"):
        option.type.convert("auto,ibp", option, None)
    for text in ("auto,other", "other", ","):
        with pytest.raises(click.BadParameter):
            option.type.convert(text, option, None)


def test_lists_of_what_fails() -> None:
    context, option = click.Context(click.Command("verify")), click.Option(["--fail-on"])
    assert split_list(context, option, None) == ()
    assert split_list(context, option, ", ".join(FAILING)) == FAILING
    for text in ("", "falsified,", "verified", "Falsified"):
        with pytest.raises(click.BadParameter, match="is none of falsified, unknown, misclassified"):
            split_list(context, option, text)


def test_stacked_options_keep_their_order_in_the_help() -> None:
    names = [f"--o{k}" for k in range(4)]
    command = click.command()(stacked(*(click.option(name) for name in names))(lambda **_: None))
    assert [parameter.opts[0] for parameter in command.params] == names
