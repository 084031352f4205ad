"""`rocket import`: a public log, or one's own, becomes impressions, clicks and requests."""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from contracts.app import App
from contracts.errors import ContractError, StoreError, did_you_mean
from deploy.progress import TerminalProgress

app = typer.Typer(add_completion=False)

LOGS = {
    "kuairand": "KuaiRand-Pure: impressions of a short-video feed (Gao et al., CIKM 2022)",
    "criteo": "Criteo's display ads: train.txt of the Kaggle challenge, or day_0 to day_23 of the Terabyte logs",
    "avazu": "Avazu's mobile ads: train.csv of the Kaggle challenge",
    "taobao-ad": "Alibaba's display ads: raw_sample, ad_feature, user_profile and, if given, behavior_log (.csv)",
    "csv": "your own log, a row an impression, by a mapping of its columns (--app, --map)",
}


@app.command()
def import_(
    log: Annotated[str, typer.Argument(help=f"Which log: {', '.join(LOGS)}.")],
    sources: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Its files, plain or gzip; of kuairand, taobao-ad a folder.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for impressions, clicks and requests (NDJSON).")],
    app_name: Annotated[
        str | None, typer.Option("--app", help="The app whose contracts the events keep; csv needs one.")
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", help="csv: COLUMN=COLUMN OF THE FILE, SETTING=VALUE, or a TOML file of both."),
    ] = None,
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="Stop after so many impressions.")] = None,
    no_requests: Annotated[bool, typer.Option("--no-requests", help="Do not write requests.ndjson.")] = False,
    sets: Annotated[list[str] | None, typer.Option("--set", help="A setting: section.key=value.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the click delays that the log does not have.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Turn a log into impressions, clicks and requests.

    The public logs have no click times: the delay of each click is drawn from a seeded log-normal distribution
    (median 8 s, more than 99.9 % within the 600 s wait), and import.json says so, and what else is made up. Records
    that are none are counted and kept in dead_letters.parquet.
    """
    from flows.settings import load_app_with_settings
    from nodes.import_kuairand import import_kuairand

    if log not in LOGS:
        raise ContractError(f"no importer for '{log}'; {did_you_mean(log, LOGS)}")
    if log == "csv" and app_name is None:
        raise ContractError("import csv needs the app whose events the log shall give: --app NAME or DIR")
    if log != "csv" and mapping:
        raise ContractError(f"--map is for csv; the layout of {log} is known")
    made_for = load_app_with_settings(app_name or log, sets)
    if log == "kuairand":
        if len(sources) > 1 or rows is not None or no_requests:
            raise ContractError("import kuairand takes one folder, and neither --rows nor --no-requests")
        made = import_kuairand(sources[0], out, seed=seed, app=made_for)
    else:
        with TerminalProgress(quiet=as_json) as progress:
            progress.stage("import", rows)
            done = 0

            def tell(more: int) -> None:
                nonlocal done
                done += more
                progress.advance(done, rows)

            settings = {"seed": seed, "most": rows, "requests": not no_requests, "on_progress": tell}
            made = _import(log, sources, out, made_for, mapping or [], settings)
    _say(made, out, to_stderr=as_json)
    if as_json:
        typer.echo(json.dumps(made))


def _import(
    log: str, sources: Sequence[Path], out: Path, made_for: App, mapping: Sequence[str], settings: dict[str, Any]
) -> dict[str, Any]:
    from contracts.mapping import mapping_of
    from nodes.imports import avazu, criteo, csv_log, taobao_ad
    from nodes.imports.event_files import write_events

    if log in {"criteo", "avazu"}:
        rows, about = {
            "criteo": (criteo.criteo_rows, criteo.about_criteo),
            "avazu": (avazu.avazu_rows, avazu.about_avazu),
        }[log]
        return write_events(rows(sources), out, made_for, about={"log": log, **about(sources)}, **settings)
    told: Callable[[Path], Any]
    if log == "taobao-ad":
        about_log = taobao_ad.about_taobao_ad(sources)
        told = lambda scratch: taobao_ad.taobao_ad_rows(sources, scratch)  # noqa: E731
    else:
        mapped = mapping_of(mapping, made_for.impressions.schema_)
        about_log = csv_log.about_csv(sources, mapped)
        told = lambda scratch: csv_log.csv_rows(sources, made_for, mapped, scratch)  # noqa: E731
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".sorting-", dir=out) as scratch:
            return write_events(told(Path(scratch)), out, made_for, about={"log": log, **about_log}, **settings)
    except OSError as error:
        raise StoreError(f"{out}: cannot be written ({error}); free the space, or give your own folder") from error


def _say(made: dict[str, Any], out: Path, *, to_stderr: bool) -> None:
    drawn = made["click_delay"].get("drawn", made["clicks"])
    delays = " (delays drawn, not observed)" if drawn else ""
    asked = f" and {made['requests']:,} requests" if "requests" in made else ""
    shown = f"{made['impressions']:,} impressions, {made['clicks']:,} clicks{delays}"
    typer.echo(f"{shown}{asked} in {out}", err=to_stderr)
    if dead := made.get("dead_lettered"):
        what = ", ".join(f"{count:,} {reason}" for reason, count in dead.items())
        typer.echo(
            f"{sum(dead.values()):,} records of no use ({what}) in {out / 'dead_letters.parquet'}", err=to_stderr
        )
