"""A command whose --help lists its options under headings. Knows only the names of parameters."""

from collections.abc import Mapping, Sequence

import click


class SectionedCommand(click.Command):
    """A command with *sections*: heading → names of its parameters; the others follow under 'Options'."""

    def __init__(
        self,
        name: str | None = None,
        *,
        sections: Mapping[str, Sequence[str]],
        callback: object = None,
        params: list[click.Parameter] | None = None,
        help: str | None = None,  # noqa: A002 — click's own name
    ) -> None:
        super().__init__(name, callback=callback, params=params, help=help)  # type: ignore[arg-type]
        self._sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section."""
        records = {p.name: record for p in self.get_params(ctx) if (record := p.get_help_record(ctx)) is not None}
        for heading, names in self._sections.items():
            with formatter.section(heading):
                formatter.write_dl([records.pop(name) for name in names])
        if records:
            with formatter.section("Options"):
                formatter.write_dl(list(records.values()))
