"""Whether a delivered map or a model is as it was written: what is wrong with it, in words."""

from __future__ import annotations

from pathlib import Path

from aftermap import card, journal
from aftermap.card import Card
from aftermap.errors import AftermapError, InputRefusedError

NO_MAP = "give the folder that aftermap map wrote, or that of a model"


def wrong_in(folder: Path) -> list[str]:
    """Empty when every byte that counts is as it was: products and seal of a map, files and card of a model, journal of an
    unfinished run. Raises InputRefusedError ("no-map", "damaged")."""
    if (folder / journal.SEAL).exists():
        return journal.verify(folder)
    if (folder / card.FILE).is_file():
        return _model(folder)
    if not (folder / journal.WORK).is_dir():
        raise InputRefusedError(f"{folder} holds no finished map, and no model", repair=NO_MAP, code="no-map")
    if torn := journal.torn(folder):
        return torn
    what = f"{folder} holds a map that is not finished; the windows that are, are whole"
    raise InputRefusedError(what, repair="run the same command again, which goes on from them", code="no-map")


def _model(folder: Path) -> list[str]:
    try:
        found = Card.read(folder)
    except AftermapError as error:
        return [error.what]
    text = (folder / card.FILE).read_text(encoding="utf-8")
    above, _, _ = text.rpartition(card.SEALED)
    changed = [] if text == card.sealed(above) else [f"{card.FILE} has changed since it was written, or holds no hash of itself"]
    return changed + [f"{name} is missing" for name in sorted(found.sha256) if not (folder / name).exists()]
