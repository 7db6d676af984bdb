"""`infra`: the deployment files that come with Lowtide."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lowtide.cli.options import ends_well, json_option

if TYPE_CHECKING:
    from lowtide.cli.templates import Template

_KINDS = click.Choice(["aws", "azure", "compose", "prefect", "worker"])


@click.group()
def infra() -> None:
    """Print the files that a deployment needs: CloudFormation, Bicep, Docker Compose, Prefect, spot workers."""


@infra.command("list")
@json_option
@ends_well
def list_files(as_json: bool) -> int:
    """Say which files there are."""
    import orjson

    from lowtide.cli.templates import KINDS, templates

    if as_json:
        found = {kind: {one.name: one.about for one in templates(kind)} for kind in KINDS}
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return 0
    for kind, about in KINDS.items():
        click.echo(f"{click.style(kind, bold=True)}  {about}")
        for one in templates(kind):
            click.echo(f"    {one.name}")
    click.echo("\nlowtide infra show KIND prints them, --params what they ask for, --out FOLDER writes them")
    return 0


@infra.command()
@click.argument("kind", type=_KINDS)
@click.option("--file", "name", metavar="NAME", help="Only this file, and nothing around it.")
@click.option("--params", is_flag=True, help="What the files ask for, and not the files.")
@click.option("--out", type=click.Path(), help="Write the files into a folder, over none that is there.")
@json_option
@ends_well
def show(kind: str, name: str | None, params: bool, out: str | None, as_json: bool) -> int:
    """Print the files of a kind, or what they ask for."""
    from lowtide.cli.templates import template, templates
    from lowtide.errors import ConfigError

    if out is not None and (params or as_json):
        raise ConfigError("--out writes files: leave out --params and --json")
    if as_json and not params:
        raise ConfigError("--json goes with --params: the files are what they are")
    found = templates(kind) if name is None else (template(kind, name),)
    if params:
        _print_parameters(found, as_json=as_json)
    elif out is not None:
        _write(found, out)
    elif name is not None:
        click.echo(found[0].text, nl=False)
    else:
        for one in found:
            click.echo(f"==> {one.name} <==\n{one.text}")
    return 0


def _print_parameters(found: tuple[Template, ...], *, as_json: bool) -> None:
    import orjson

    if as_json:
        asked = {one.name: [asdict(parameter) for parameter in one.parameters] for one in found}
        click.echo(orjson.dumps(asked, option=orjson.OPT_INDENT_2).decode())
        return
    for one in found:
        if not one.parameters:
            continue
        click.echo(click.style(one.name, bold=True))
        for parameter in one.parameters:
            default = {None: "needed", "": "may stay empty"}.get(parameter.default, f"default {parameter.default}")
            click.echo(f"    {parameter.name}  ({default})")
            click.echo(click.wrap_text(parameter.description, 100, " " * 8, " " * 8))


def _write(found: tuple[Template, ...], out: str) -> None:
    from lowtide.errors import ConfigError

    folder = Path(out)
    there = [one.name for one in found if (folder / one.name).exists()]
    if there:
        raise ConfigError(f"--out {out}: {', '.join(there)}: there already; move them away, or choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in found:
            (folder / one.name).write_text(one.text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from error
    click.echo(f"wrote {', '.join(one.name for one in found)} into {out}")
