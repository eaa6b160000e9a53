"""`padlite paths`: where padlite keeps things."""

import json

import click

from padlite import settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def paths(*, as_json: bool) -> None:
    """Show where padlite keeps things. PADLITE_CONFIG_DIR, PADLITE_DATA_DIR and PADLITE_CACHE_DIR move them."""
    own = settings.paths()
    places = {
        "config": own.config,
        "profiles": own.profiles,
        "data": own.data,
        "sessions": own.sessions,
        "input_history": own.input_history,
        "user_models": own.user_models,
        "cache": own.cache,
        "bundled_models": settings.bundled_models(),
    }
    if as_json:
        click.echo(json.dumps({name: str(place) for name, place in places.items()}, ensure_ascii=False, indent=2))
        return
    for name, place in places.items():
        click.echo(f"{name.replace('_', ' '):<15} {place}{'' if place.exists() else '   (not there yet)'}")
