"""Prints the results of `pratique-node enrol` and `doctor` as plain lines."""

import sys
from typing import TYPE_CHECKING

import typer

from governance.runtime.safe_text import shown

if TYPE_CHECKING:
    from client.commands.check_result import CheckResult
    from client.commands.enrol import Introduction
    from client.home import NodeHome

SIGNS = {"good": "ok  ", "soon": "soon", "failed": "FAIL", "skipped": "--  "}


def print_introduction(introduction: "Introduction", *, as_json: bool) -> None:
    """Print what the operator compares by voice; with `as_json`, on standard error."""
    lines = (
        f"Federation: {introduction.federation}, exchange at {introduction.exchange}",
        f"Fingerprint of this request: {introduction.fingerprint}",
        f"Transport authority: {introduction.authority_digest}",
        f"Root of the documents: {introduction.root_digest}",
        (
            "Read the fingerprint out to the coordinator. Then ask the coordinator to read the two "
            "digests out to you, and check that they are the same."
        ),
    )
    for line in lines:
        typer.echo(line, err=as_json)
    sys.stdout.flush()


def print_enrolment(admitted: bool, home: "NodeHome") -> None:  # noqa: FBT001 (an answer, yes or no)
    """Print the result of the request for admission, and the next step."""
    if admitted:
        typer.echo("The node is admitted.")
        typer.echo(f"Next: ask your officer to sign {home.node_keys}, then run pratique-node up")
    else:
        typer.echo("The request waits for approval; after that, run the same command again.")


def print_result(result: "CheckResult") -> None:
    """Print the result of one check of the doctor."""
    typer.echo(shown(f"{SIGNS[result.state]}  {result.name}: {result.says}"))
    if result.fix:
        typer.echo(shown(f"      to do: {result.fix}"))
