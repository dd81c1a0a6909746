"""Which server do commands ask, as whom, for which model, and how is its thinking shown?"""

import typer

from expertmesh.clients.transcript import Thinking
from expertmesh.cluster.state import DEFAULT_URL

BASE_URL = typer.Option(
    None,
    envvar="EXPERTMESH_BASE_URL",
    help="URL of the server, with or without /v1. Default: the running cluster's, else "
    f"{DEFAULT_URL}.",
)
API_KEY = typer.Option(None, envvar="EXPERTMESH_API_KEY", help="API key, if the server wants one.")
MODEL_NAME = typer.Option(
    None,
    "--model-name",
    envvar="EXPERTMESH_MODEL_NAME",
    help="Model name in the API. Default: the first that the server lists.",
)
THINKING = typer.Option(
    Thinking.FOLDED, envvar="EXPERTMESH_THINKING", help="How thinking is shown."
)
