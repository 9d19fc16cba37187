"""`pratique-coordinator result`: show, verify and apply released results."""

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from governance.runtime.cli_support import JsonOption, plain_errors, show
from governance.runtime.wording import counted
from server.commands.options import DEFAULT_HOME, HomeOption

if TYPE_CHECKING:
    from server.learning.predict import Predictions
    from server.learning.release import Result

result_app = typer.Typer(no_args_is_help=True, help="Released results.")
NameArgument = Annotated[str, typer.Argument(help="A study's id, or the folder of a result.")]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", help="The coordinator's document key, if its folder is not here."),
]


@result_app.command("show")
def show_result(
    name: NameArgument,
    home: HomeOption = DEFAULT_HOME,
    key: KeyOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 (a flag)
) -> None:
    """Print a verified result with its privacy statement."""
    with plain_errors():
        _, result = _verified(home, name, key)
        show(result.model_dump(mode="json"), as_json=as_json, plain=lambda _: _print(result))


@result_app.command()
def verify(name: NameArgument, home: HomeOption = DEFAULT_HOME, key: KeyOption = None) -> None:
    """Verify a result's signature, and the digest of its model."""
    from keys.identity import VerifyKey  # noqa: PLC0415 (keeps --help quick)
    from server.learning.release import read_weights  # noqa: PLC0415

    with plain_errors():
        folder, result = _verified(home, name, key)
        if result.model is not None:
            read_weights(folder, result)
        fingerprint = VerifyKey.from_text(result.signer).fingerprint
        typer.echo(f"The result of {result.study_id} is unaltered, signed by {result.signer}.")
        typer.echo(f"  fingerprint of this key: {fingerprint}")


@result_app.command()
def predict(
    name: NameArgument,
    file: Annotated[
        Path, typer.Argument(help="CSV with the study's input features.", readable=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; standard output if left out.", readable=False),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    key: KeyOption = None,
) -> None:
    """Score every row of a CSV with a released model."""
    from server.learning.predict import predict_file  # noqa: PLC0415 (keeps --help quick)
    from server.learning.release import read_weights  # noqa: PLC0415

    with plain_errors():
        folder, result = _verified(home, name, key)
        weights = read_weights(folder, result)
        predictions = predict_file(result.task, result.features, weights, file)
        _write(out, predictions)
        for note in predictions.notes:
            typer.echo(f"Note: {note}.", err=True)


def _write(out: Path | None, predictions: "Predictions") -> None:
    table = [predictions.header, *predictions.rows]
    if out is None:
        csv.writer(sys.stdout).writerows(table)
        return
    with out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(table)
    typer.echo(f"{counted(len(predictions.rows), 'prediction')} in {out}.")


def _verified(home: Path, name: str, key: str | None) -> tuple[Path, "Result"]:
    from server.commands.trusted_key import find_result_folder, trusted_key  # noqa: PLC0415
    from server.learning.release import read_result  # noqa: PLC0415

    folder = find_result_folder(home, name)
    return folder, read_result(folder, [trusted_key(home, key)])


def _print(result: "Result") -> None:
    typer.echo(f"{result.title} ({result.study_id})")
    typer.echo(f"  {result.purpose}")
    typer.echo(f"  countries: {', '.join(result.countries)}; released {result.released[:10]}")
    typer.echo(f"  for: {', '.join(result.recipients)}; kept until {result.keep_until[:10]}")
    typer.echo(f"  {result.statement}")
    if result.rounds_void:
        were = "was void and stays" if result.rounds_void == 1 else "were void and stay"
        typer.echo(f"  {counted(result.rounds_void, 'round')} {were} charged.")
    if result.evaluation:
        _print_group(result.evaluation["everybody"])
        for group in result.evaluation["subgroups"]:
            _print_group(group)
    for cell in (result.table or {}).get("cells", []):
        _print_cell(cell)


def _print_group(group: dict[str, Any]) -> None:
    typer.echo(f"  held-out patients, {group['group']}:")
    for name, estimate in group.items():
        if name != "group":
            typer.echo(f"    {name.replace('_', ' '):30} {_estimate_text(estimate)}")


def _estimate_text(estimate: Any) -> str:
    if estimate is None:
        return "suppressed (too few patients)"
    return f"{estimate['value']:.3f}  [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _print_cell(cell: dict[str, Any]) -> None:
    name = ", ".join(cell["labels"]) or "all patients"
    count = (
        "suppressed (too small to show)"
        if cell["suppressed"]
        else f"{cell['count']}  [{cell['low']}, {cell['high']}]"
    )
    typer.echo(f"    {name:34} {count}")
