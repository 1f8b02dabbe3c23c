"""An S3 server of this machine's own: moto's, on a free port of the loopback, for as long as a test run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "animals"


@contextmanager
def object_store() -> Iterator[dict[str, str]]:
    """Inside, ``s3://animals`` is a bucket on this machine; yields the variables that say so, which are set."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in variables.items():
            monkeypatch.setitem(os.environ, name, value)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        try:
            yield variables
        finally:
            server.stop()


def stored(folder: str) -> dict[str, bytes]:
    """Every object below ``s3://animals/<folder>``, by its path in it; fewer than a thousand."""
    client = boto3.client("s3")
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET, Prefix=f"{folder}/").get("Contents", [])]
    return {key.removeprefix(f"{folder}/"): client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}
