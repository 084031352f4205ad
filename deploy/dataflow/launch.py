"""What a flex template's launcher runs: its parameters and Beam's options, as `rocket dataflow` takes them."""

import sys

from deploy.cli import main


def arguments(given: list[str]) -> list[str]:
    """The launcher's --set=a=1;b=2 as one --set each; all else as it is.

    >>> arguments(["--clicks=kafka://b:9092/c", "--set=labels.wait_s=60;ingest.shards=8", "--job_name=j"])
    ['dataflow', '--clicks=kafka://b:9092/c', '--set=labels.wait_s=60', '--set=ingest.shards=8', '--job_name=j']
    """
    told = ["dataflow"]
    for argument in given:
        name, _, value = argument.partition("=")
        told += [f"--set={one}" for one in value.split(";") if one] if name == "--set" else [argument]
    return told


if __name__ == "__main__":
    sys.argv[1:] = arguments(sys.argv[1:])
    main()
