"""``tinker-local serve``: a server for Tinker's SDK, OpenAI's clients and a browser."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinker_local.cli.parameters import complete_model, takes_options
from tinker_local.errors import BadRequestError
from tinker_local.service_client import ServiceClient
from tinker_local.store.catalog import install_command

if TYPE_CHECKING:
    from tinker_local.serve import Server

KEY_PREFIX = "tml-"
"""How keys begin that Tinker's SDK accepts."""
_KEY_VARIABLE = "TINKER_LOCAL_API_KEY"


@takes_options
def serve(
    options: Mapping[str, Any],
    host: Annotated[
        str, typer.Option(help="Address to listen at. Others than this machine's need --api-key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8000,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "--base-model",
            autocompletion=complete_model,
            help="Model to load at the start: a name or a GGUF file, served under its file's name. "
            "May be given several times. All others in the store are loaded when they are asked for.",
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar=_KEY_VARIABLE, help="Key that clients must send; begins with tml-. Unset: any will do."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Another name of this server in Host headers. May be given several times."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="A web page that may ask: https://example.org. May be given several times."),
    ] = None,
    image_dir: Annotated[
        Path | None,
        typer.Option(help="Directory of PNG and JPEG files that clients may name by paths. Unset: none."),
    ] = None,
    log: Annotated[bool, typer.Option("--log", help="Log each request; without prompts.")] = False,
    log_prompts: Annotated[
        bool, typer.Option("--log-prompts", help="Log each request with its prompt.")
    ] = False,
) -> None:
    """Serve the models of this machine to Tinker's SDK, to OpenAI's clients and to a browser.

    Needs the extra serve: pip install 'tinker-local\\[serve]'. Ctrl-C lets running requests end.

    \b
    tinker-local serve
    tinker-local serve --model Qwen/Qwen3-0.6B --n-ctx 16384
    TINKER_LOCAL_API_KEY=tml-SECRET tinker-local serve --host 0.0.0.0 --port 9000
    """
    try:
        from tinker_local.serve import LOOPBACK, Access, Server, app
    except ImportError as error:
        package = (error.name or "starlette").partition(".")[0]
        raise BadRequestError(
            f"serve needs the package {package}, which is missing; run: {install_command('serve')}"
        ) from None
    _check_key(api_key, host, LOOPBACK)
    _log(log or log_prompts)
    hosts = LOOPBACK | {host.casefold(), *(name.casefold() for name in allow_host or ())}
    access = Access(api_key, hosts, frozenset(allow_origin or ()))
    with ServiceClient(**options) as service:
        application = app(
            service, models=model or (), access=access, image_dir=image_dir, logs_prompts=log_prompts
        )
        with Server(application, host, port) as server:
            _print(server, api_key)
            server.wait()


def _check_key(api_key: str | None, host: str, loopback: frozenset[str]) -> None:
    if api_key is None and host.casefold() not in loopback:
        raise BadRequestError(
            f"--host {host} can be reached from other machines; set a key that clients must send, with "
            f"--api-key or {_KEY_VARIABLE}"
        )
    if api_key is not None and not (api_key.startswith(KEY_PREFIX) and api_key.isascii()):
        raise BadRequestError(f"the key must be ASCII and begin with {KEY_PREFIX}, as Tinker's SDK asks")


def _log(is_wanted: bool) -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("tinker_local.serve").setLevel(logging.INFO if is_wanted else logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)


def _print(server: Server, api_key: str | None) -> None:
    key = KEY_PREFIX + "local" if api_key is None else f"${_KEY_VARIABLE}"
    typer.echo(f"export TINKER_BASE_URL={server.url} TINKER_API_KEY={key}")
    typer.echo(f"export OPENAI_BASE_URL={server.url}/v1 OPENAI_API_KEY={key}")
    typer.echo(f"# a page for browsers: {server.url}/")


__all__ = ["serve"]
