"""The options of `qverify train`, and the `--config` file that may hold any of them.

Imports nothing that takes time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from qverify.choices import PLAIN_ROUNDINGS, SCHEMES
from qverify.cli.options import input_scale_option, stacked
from qverify.cli.words import BitWidth
from qverify.errors import UsageError
from qverify.files.toml import read_toml
from qverify.text.escapes import shown

Command = TypeVar("Command", bound=Callable[..., Any])


def _configured(context: click.Context, parameter: click.Parameter, path: str | None) -> None:
    """Make what the file says the defaults of this call. Raises UsageError."""
    if path is None:
        return
    content = read_toml(path, "configuration", UsageError)
    options = {option.removeprefix("--"): p for p in context.command.params for option in p.opts}
    names = {key: p.name for key, p in options.items()}
    allowed = sorted(set(names) - {"config", "resume", "json"})
    if unknown := sorted(set(content) - set(allowed)):
        raise UsageError(f"{path}: unknown key {shown(unknown[0])}; the keys are {', '.join(allowed)}.")
    for key, value in content.items():
        if not _fits(options[key], value):
            raise UsageError(f"{path}: {key} is {shown(value)}; write it as {_wanted(options[key])}.")
    context.default_map = {names[key]: value for key, value in content.items()}


def _kind(option: click.Parameter) -> tuple[type, ...]:
    """The TOML type that an option wants; click would take 1.5 for the whole number 1."""
    if isinstance(option.type, click.types.IntParamType):
        return (int,)
    return (int, float) if isinstance(option.type, click.types.FloatParamType) else (str,)


def _fits(option: click.Parameter, value: Any) -> bool:
    values = value if option.nargs > 1 and isinstance(value, list) else [value]
    kinds = all(isinstance(v, _kind(option)) and not isinstance(v, bool) for v in values)
    return kinds and len(values) == option.nargs


def _wanted(option: click.Parameter) -> str:
    words: dict[tuple[type, ...], str] = {
        (int,): "a whole number",
        (int, float): "a number",
        (str,): "a text in quotes",
    }
    return f"a list of {option.nargs} numbers" if option.nargs > 1 else words[_kind(option)]


def train_options() -> Callable[[Command], Command]:
    """Options for the data, the network, the radii and the training."""
    return stacked(
        click.option(
            "--config",
            metavar="FILE.toml",
            is_eager=True,
            expose_value=False,
            callback=_configured,
            help="Take options from a file, e.g. epochs = 60; what the command line says goes before it.",
        ),
        click.option(
            "--data", required=True, metavar="NAME|FILE.npz", help="digits, mnist, fashion-mnist, cifar10, or an .npz."
        ),
        click.option(
            "--arch",
            required=True,
            help="mlp:256,256,256 or conv:8k4s2p1,16k4s2p1/100 (channels, kernel, stride, padding; then dense widths).",
        ),
        input_scale_option,
        click.option("--out", required=True, metavar="FILE.onnx", help="The model; a .json beside it says how."),
        click.option(
            "--bits",
            type=BitWidth("train a network for each"),
            metavar="N",
            help="Train for the radii of N bits.  [default: train normally]",
        ),
        click.option("--scheme", type=click.Choice(SCHEMES), help="What N bits mean.  [default: paper]"),
        click.option(
            "--rounding", type=click.Choice(PLAIN_ROUNDINGS), help="Which rounding is covered.  [default: any]"
        ),
        click.option("--radii", metavar="FILE.toml", help="Train for radii from a file, instead of --bits."),
        *_loss_options(),
        *_run_options(),
    )


def _loss_options() -> list[Callable[[Any], Any]]:
    return [
        click.option("--kappa", type=float, default=0.5, show_default=True, help="Final weight of the nominal loss."),
        click.option(
            "--ramp", type=float, default=0.5, show_default=True, help="Share of the training over which radii grow."
        ),
        click.option(
            "--factor", type=float, default=1.0, show_default=True, help="Train for the radii times this number."
        ),
        click.option(
            "--weight-limit",
            type=float,
            default=1.0,
            show_default=True,
            help="Keep weights within plus or minus this; 0: no limit. Absolute radii are meant for those in [-1, 1].",
        ),
        click.option(
            "--distortion",
            type=float,
            default=0.0,
            show_default=True,
            help="Turn, shear, scale and move training images, up to 15 degrees at 1.",
        ),
        click.option(
            "--clip-input",
            "clip",
            type=float,
            nargs=2,
            metavar="LO HI",
            help="A quantised input stays between LO and HI, as a pixel between 0 and 1 does.",
        ),
    ]


def _run_options() -> list[Callable[[Any], Any]]:
    return [
        click.option("--epochs", type=int, default=60, show_default=True),
        click.option("--batch-size", type=int, default=256, show_default=True),
        click.option("--lr", type=float, default=5e-3, show_default=True, help="Largest step size of Adam."),
        click.option(
            "--validation",
            type=float,
            default=0.05,
            show_default=True,
            help="Share of the training samples kept for choosing the best epoch.",
        ),
        click.option("--seed", type=int, default=0, show_default=True),
        click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda"),
        click.option("--threads", type=int, default=0, help="Threads of torch.  [default: one a core]"),
        click.option("--resume", is_flag=True, help="Go on after an interruption."),
    ]
