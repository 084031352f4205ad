"""`rocket up`: Kafka, Valkey and Prism on this machine, without containers."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def up(
    folder: Annotated[Path, typer.Option("--dir", help="Holds the stack's data and logs.")] = Path("runs/stack"),
    kafka_port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Kafka's port; by default its last one, else a free one.")
    ] = None,
    redis_port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Valkey's port; by default its last one, else a free one.")
    ] = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Of impressions and of clicks; by default as they are, else 4.")
    ] = None,
    prism: Annotated[bool, typer.Option("--prism/--no-prism", help="Have Prism ready, too.")] = True,
    flink: Annotated[bool, typer.Option("--flink", help="Start a Flink job server, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Bring the local stack up: what runs already stays, what died is started again, missing topics are made."""
    from deploy.local.stack import Stack

    def say(line: str) -> None:
        print(line, file=sys.stderr if as_json else sys.stdout, flush=True)

    stack = Stack(folder, kafka_port=kafka_port, redis_port=redis_port)
    content = stack.up(partitions=partitions, prism=prism, flink=flink, say=say)
    if as_json:
        print(json.dumps(content))
        return
    print(f"Kafka    {content['kafka']}  topics: {', '.join(f'{name} x{n}' for name, n in content['topics'].items())}")
    print(f"Valkey   {content['redis']}")
    if content["prism"]:
        print(f"Prism    {content['prism']}")
    if "flink" in content:
        print(f"Flink    --job-endpoint {content['flink']['endpoint']} --flink-rest {content['flink']['rest']}")
    print(f"logs     {content['logs']}")
    at = "" if folder == Path("runs/stack") else f" --dir {folder}"
    print(f"how it is: rocket status{at}; stop it: rocket down{at} (its data stays; --wipe removes it)")
    print(f"as URLs: kafka://{content['kafka']}/{next(iter(content['topics']))} and --weights {content['redis']}")
