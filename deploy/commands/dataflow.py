"""`rocket dataflow`: live ingest as a Dataflow job, or only its check."""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.settings import load_app_with_settings

app = typer.Typer(add_completion=False)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def dataflow(
    ctx: typer.Context,
    impressions: Annotated[str, typer.Option("--impressions", help="kafka:// URL.")],
    clicks: Annotated[str, typer.Option("--clicks", help="kafka:// URL.")],
    examples: Annotated[str, typer.Option("--examples", help="The example log: kafka:// URL of one partition.")],
    out: Annotated[Path, typer.Option("--out", help="Folder that every worker sees: positions, fates, dead letters.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Build and judge the job; send nothing.")] = False,
    app_name: Annotated[str, typer.Option("--app", help="A shipped app, or the folder of yours.")] = "adsim",
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value over app.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Send live ingest to Dataflow; Beam's own options (--project, --region ...) are passed on to it."""
    from flows.dataflow import check_graph, check_reachable, submit
    from flows.ingest_live import Cluster, build

    loaded = load_app_with_settings(app_name, sets)
    given = [argument for argument in ctx.args if not argument.startswith("--runner")]  # a template's launcher names it
    pipeline = build(
        loaded,
        impressions,
        clicks,
        out,
        examples=examples,
        cluster=Cluster(runner="dataflow", options=tuple(given)),
    )
    graph = check_graph(pipeline)
    print(f"{graph.steps} steps, {len(graph.stateful)} with state, {graph.proto_bytes:,} bytes")
    if dry_run:
        print("checked, and nothing was sent; brokers, bucket, image and permissions are known to the cloud alone")
    else:
        check_reachable([impressions, clicks, examples])
        print(f"sent as job {submit(pipeline)}")
    if as_json:
        print(json.dumps(graph.as_dict() | {"sent": not dry_run}))
