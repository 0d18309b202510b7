"""Running a command of this package: an error of the user is one line and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click


def run(command: click.Command, name: str, arguments: Sequence[str] | None = None) -> None:
    """Run a command as the program `name` and exit."""
    try:
        code = command.main(args=None if arguments is None else list(arguments), prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except click.Abort:
        click.echo(f"{name}: interrupted", err=True)
        sys.exit(130)
    except (click.ClickException, ValueError, TypeError, OSError, ImportError) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"{name}: {' '.join(text.split())}", err=True)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)
