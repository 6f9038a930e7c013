"""Bring the figures of all documents up to date with benchmarks/results.

python -m benchmarks.tables            # writes them
python -m benchmarks.tables --check    # says what differs, and exits with 1
"""

from pathlib import Path

import click

from benchmarks.tables.blocks import BLOCKS
from benchmarks.tables.documents import update

ROOT = Path(__file__).parents[2]


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; say what differs, and exit with 1 if anything does.")
def main(check: bool) -> None:
    """Write the figures of benchmarks/results into the documents."""
    differing = update(ROOT, BLOCKS, write=not check)
    for line in differing:
        click.echo(line if check else f"{line}: written anew")
    if check and differing:
        raise click.ClickException("run python -m benchmarks.tables")


if __name__ == "__main__":
    main()
