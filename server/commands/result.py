"""`pratique-coordinator result`: show, verify and apply released results."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governance.runtime.cli_support import JsonOption, given_path, plain_errors, say, show
from governance.runtime.safe_text import named, quoted
from governance.runtime.wording import counted, lines_text
from server.commands.options import DEFAULT_HOME, HomeOption

if TYPE_CHECKING:
    from governance.results.result import Result
    from server.learning.predict import Predictions

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
    """Verify a result's signature, the digest of its model, and that its ε covers its releases."""
    from governance.results.result import read_weights  # noqa: PLC0415
    from keys.identity import VerifyKey  # noqa: PLC0415 (keeps --help quick)

    with plain_errors():
        folder, result = _verified(home, name, key)
        if result.model is not None:
            read_weights(folder, result)
        computed = result.require_cost()
        fingerprint = VerifyKey.from_text(result.signer).fingerprint
        say(f"The result of {result.study_id} is unaltered, signed by {result.signer}.")
        say(f"  fingerprint of this key: {fingerprint}")
        say(
            "  its ε was computed again: the releases in its schedule cost no more"
            if computed
            else "  its ε cannot be computed again, because an earlier version wrote no schedule"
        )


@result_app.command()
def predict(
    name: NameArgument,
    file: Annotated[
        Path, typer.Argument(help="CSV with the study's input features.", readable=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write; standard output if left out.",
            callback=given_path,
            readable=False,
        ),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    key: KeyOption = None,
) -> None:
    """Score every row of a CSV with a released model."""
    from governance.results.result import read_weights  # noqa: PLC0415
    from server.learning.predict import predict_file  # noqa: PLC0415 (keeps --help quick)

    with plain_errors():
        folder, result = _verified(home, name, key)
        weights = read_weights(folder, result)
        predictions = predict_file(
            result.task, result.features, weights, file, baselines=result.baselines
        )
        _write(out, predictions)
        for note in (*predictions.notes, *_unpredicted(predictions)):
            say(f"Note: {note}.", err=True)


def _unpredicted(predictions: "Predictions") -> Iterator[str]:
    """Yield a note if rows have no prediction, with their lines in the output, header included."""
    empty = [line for line, row in enumerate(predictions.rows, start=2) if not any(row)]
    if empty:
        rows = counted(len(empty), "row has no prediction", "rows have no prediction")
        yield (
            f"{rows}: a value is missing without which the study leaves a patient out "
            f"({lines_text(empty)} of the predictions)"
        )


def _write(out: Path | None, predictions: "Predictions") -> None:
    table = [predictions.header, *predictions.rows]
    if out is None:
        csv.writer(sys.stdout).writerows(table)
        return
    with out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(table)
    say(f"{counted(len(predictions.rows), 'prediction')} in {out}.")


def _verified(home: Path, name: str, key: str | None) -> tuple[Path, "Result"]:
    from governance.results.result import read_result  # noqa: PLC0415
    from server.commands.trusted_key import find_result_folder, trusted_key  # noqa: PLC0415

    folder = find_result_folder(home, name)
    return folder, read_result(folder, [trusted_key(home, key)])


def _print(result: "Result") -> None:
    from governance.results.result import integrity_sentence  # noqa: PLC0415
    from server.commands.figures import figure_lines  # noqa: PLC0415 (keeps --help quick)

    say(f"Result of {named(result.study_id)}: {quoted(result.title)}")
    say(f"  purpose: {quoted(result.purpose)}")
    countries, released = map(named, result.countries), named(result.released[:10])
    say(f"  countries: {', '.join(countries)}; released {released}")
    recipients, end = map(quoted, result.recipients), named(result.keep_until[:10])
    say(f"  for: {', '.join(recipients)}; kept until {end}")
    say(f"  statement: {result.statement}")
    if result.baselines:
        say(f"  by country: {result.baselines.sentence(result.task, result.features)}")
    say(f"  integrity: {integrity_sentence(result.task)}")
    if result.rounds_void:
        were = "was void and stays" if result.rounds_void == 1 else "were void and stay"
        say(f"  {counted(result.rounds_void, 'round')} {were} charged.")
    for line in figure_lines(result):
        say(line)
