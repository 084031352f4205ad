"""`rocket import`: a public log becomes impressions, clicks and requests."""

import json
from pathlib import Path
from typing import Annotated

import typer

from contracts.errors import ContractError, did_you_mean

app = typer.Typer(add_completion=False)

LOGS = {"kuairand": "KuaiRand-Pure: impressions of a short-video feed (Gao et al., CIKM 2022)"}


@app.command()
def import_(
    log: Annotated[str, typer.Argument(help="Which public log: kuairand.")],
    source: Annotated[Path, typer.Argument(metavar="DIR", help="The folder with its files.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for impressions, clicks and requests (NDJSON).")],
    app_name: Annotated[str, typer.Option("--app", help="The app whose contracts the events keep.")] = "kuairand",
    sets: Annotated[list[str] | None, typer.Option("--set", help="A setting: section.key=value.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the click delays, which the log does not have.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Turn a public log into impressions, clicks and requests.

    The KuaiRand log has no click times: the delay of each click is drawn from a seeded log-normal distribution
    (median 8 s, more than 99.9 % within the 600 s wait), and import.json says so.
    """
    from flows.settings import load_app_with_settings
    from nodes.import_kuairand import import_kuairand

    if log not in LOGS:
        raise ContractError(f"no importer for '{log}'; {did_you_mean(log, LOGS)}")
    made = import_kuairand(source, out, seed=seed, app=load_app_with_settings(app_name, sets))
    typer.echo(
        f"{made['impressions']:,} impressions, {made['clicks']:,} clicks (delays drawn, not observed) and "
        f"{made['requests']:,} requests in {out}",
        err=as_json,
    )
    if as_json:
        typer.echo(json.dumps(made))
