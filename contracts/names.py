"""Every key, topic and group name, as functions: written once."""


def manifest_key(model: str, version: int) -> str:
    """Redis key of a version's manifest.

    >>> manifest_key("adsim", 3)
    'ctr:adsim:v:3:manifest'
    """
    return f"ctr:{model}:v:{version}:manifest"


def blob_key(model: str, version: int, chunk: int) -> str:
    """Redis key of one chunk of a version."""
    return f"ctr:{model}:v:{version}:b:{chunk}"


def current_key(model: str) -> str:
    """Redis key of the pointer to the current version."""
    return f"ctr:{model}:current"


def releases_key(model: str) -> str:
    """Redis key of the stream that says who published what, when and why."""
    return f"ctr:{model}:releases"


def held_key(model: str) -> str:
    """Redis key of the stream that says which candidates were held, when and why."""
    return f"ctr:{model}:held"


def serving_key(model: str, member: str) -> str:
    """Redis key under which a scorer says what it serves.

    >>> serving_key("adsim", "host:7")
    'ctr:adsim:serving:host:7'
    """
    return f"ctr:{model}:serving:{member}"


def topic(stream: str, version: int = 1) -> str:
    """Kafka topic of a stream.

    >>> topic("impressions")
    'ctr.impressions.v1'
    """
    return f"ctr.{stream}.v{version}"


def segment_file(first_row: int) -> str:
    """File name of a segment of the example log.

    >>> segment_file(4096)
    'segment-000000004096.arrow'
    """
    return f"segment-{first_row:012d}.arrow"
