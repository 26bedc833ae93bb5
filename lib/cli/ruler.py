"""notch ruler draft: the door to a ruler of one's own. `notch freeze` seals what came of it."""

from __future__ import annotations

from pathlib import Path

import click

from lib.show import plural


@click.group()
def ruler() -> None:
    """A ruler of one's own: draft it here, review it, seal it with `notch freeze`, use it by NOTCH_RULER."""


@ruler.command()
@click.argument("tasks", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--ruler", "folder", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="Folder of the draft. What a person wrote there stays; only what is missing is filled.")  # fmt: skip
@click.option("--dollars", type=click.FloatRange(min=0, min_open=True), metavar="CAP",
              help="Let Claude write gold and unknowns, for this much at most. Without it they are forms to fill in.")  # fmt: skip
@click.option("--model", default="claude-sonnet-5-5", show_default=True, help="Who writes them.")
def draft(tasks: Path, folder: Path, dollars: float | None, model: str) -> None:
    """Make a draft from a list of tasks: one a line, or gate, area and task between tabs."""
    from lib.claude.store import paid
    from lib.desk import draft as drafts
    from lib.measure.keep import reach

    made = drafts.draft(tasks, folder, model, dollars or 0.0)
    click.echo(f"{folder}: {plural(len(made.cases), 'case')}, {reach(case.gate for case in made.cases.values())}")
    for file, filling in made.rows.items():
        by_claude = f", {filling.written} written now by {model}" if dollars else ""
        click.echo(f"  {file}: {len(filling.empty)} to fill in{by_claude}")
    if dollars:
        click.echo(f"  ${paid(folder / drafts.STORE):.2f} paid for this draft so far")
    click.echo(f"Read every row, mend it and set \"reviewed\": true; then `notch freeze --ruler {folder}`. "
               "`critical` repeats one of the row's questions word for word. A ruler may do without unknowns: delete the file.")  # fmt: skip
