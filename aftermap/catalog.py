"""STAC APIs: which are known, how they are asked, how their addresses are signed. The door to pystac-client."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

from aftermap import places
from aftermap.aoi import Aoi
from aftermap.errors import InputRefusedError, JobInterruptedError, UnknownNameError, UsageError
from aftermap.stacfacts import Item

RETRIES, BACKOFF_S, TIMEOUT_S = 5, 1.0, 60.0
_BUSY = (408, 425, 429, 500, 502, 503, 504)
"""HTTP states that may pass by themselves."""
_PAGE = 100
_MOST = 10_000
"""Items of one search; more are of another question."""
_TOKEN_BYTES = 1_000_000
_EARLY = timedelta(minutes=5)
"""Before a token expires it is renewed."""


@dataclass(frozen=True)
class Catalog:
    """An API, and what of its collections can be mapped."""

    name: str
    url: str
    images: Mapping[str, str]
    """Kind of image -> collection."""
    beside: Mapping[str, str]
    """Layer -> collection."""
    token_url: str = ""
    """Where its files ask for a token: ends in /{collection}; empty where they do not."""
    note: str = ""


CATALOGS = {
    c.name: c
    for c in (
        Catalog(
            "planetary-computer", "https://planetarycomputer.microsoft.com/api/stac/v1",
            {"radar": "sentinel-1-rtc", "optical": "sentinel-2-l2a"},
            {"dem": "cop-dem-glo-30", "low_sensitivity": "esa-worldcover", "reference_water": "jrc-gsw"},
            "https://planetarycomputer.microsoft.com/api/sas/v1/token/{collection}",
        ),
        Catalog(
            "earth-search", "https://earth-search.aws.element84.com/v1", {"optical": "sentinel-2-c1-l2a"},
            {"dem": "cop-dem-glo-30"},
            note="its Sentinel-1 is GRD, neither calibrated nor on the ground's place: not read",
        ),
        Catalog(
            "cdse", "https://stac.dataspace.copernicus.eu/v1", {"optical": "sentinel-2-l2a"}, {},
            note="its files are on S3 and want AWS_S3_ENDPOINT=eodata.dataspace.copernicus.eu, AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY; its Sentinel-1 is GRD: not read",
        ),
    )
}  # fmt: skip
USUAL = "planetary-computer"


def catalog(name: str, token_url: str = "") -> Catalog:
    """The one of that name, or an API by its address, whose collections are taken to be called as Planetary Computer's.

    Raises UnknownNameError.
    """
    if name in CATALOGS:
        return CATALOGS[name]
    if not name.startswith(("http://", "https://")):
        raise UnknownNameError("catalog", name, [*CATALOGS, "https://..."])
    usual = CATALOGS[USUAL]
    return Catalog(name, name, usual.images, usual.beside, token_url)


def search(
    url: str, collections: Sequence[str], aoi: Aoi, span: tuple[datetime, datetime] | None = None
) -> list[Item]:  # fmt: skip
    """Items of these collections that touch an area, taken within a span of time; each as plain JSON, without links.

    A busy or failing server is asked again, each time later. Raises UsageError ("extra-missing"), JobInterruptedError
    ("catalog") where it does not answer, InputRefusedError ("catalog") where it refuses.
    """
    client, io, errors, retry = _client()
    patient = retry(RETRIES, backoff_factor=BACKOFF_S, status_forcelist=_BUSY, allowed_methods=None)
    try:
        api = client.open(url, stac_io=io(max_retries=patient, timeout=TIMEOUT_S))
        held = {c.id for c in api.get_collections()}
        wanted = [c for c in collections if c in held]
        if not wanted:
            return []
        asked = {"datetime": [t.astimezone(UTC) for t in span]} if span else {}
        found = api.search(collections=wanted, intersects=dict(aoi.geojson), limit=_PAGE, max_items=_MOST, **asked)
        items = [dict(item) for item in found.items_as_dicts()]
    except errors.APIError as error:
        code = getattr(error, "status_code", None)
        if code and code < 500 and code != 429:
            what = f"{url} refuses the search: {code} {error}"
            raise InputRefusedError(what, repair="check the address and the area", code="catalog") from error
        raise _silent(url, error) from error
    except (OSError, ValueError, KeyError) as error:
        raise _silent(url, error) from error
    for item in items:
        item.pop("links", None)
    touching = [item for item in items if item.get("geometry") and aoi.touches(item["geometry"])]
    return sorted(touching, key=lambda i: (str(i.get("collection")), str(i["id"])))


def _silent(url: str, error: Exception) -> JobInterruptedError:
    return JobInterruptedError(f"{url} does not answer as a STAC API: {error}", repair="try again later", code="catalog")


def _client() -> tuple[Any, Any, Any, Any]:
    try:
        from pystac_client import Client, exceptions
        from pystac_client.stac_api_io import StacApiIO
        from urllib3.util import Retry
    except ImportError as error:
        what = "pystac-client, which asks STAC APIs, is not installed"
        raise UsageError(what, repair='pip install "aftermap[cloud]"', code="extra-missing") from error
    return Client, StacApiIO, exceptions, Retry


@dataclass
class Signer:
    """Addresses with the token that their host wants, which is asked for when the first is signed, and again when it expires."""

    token_url: str
    tokens: dict[str, tuple[str, datetime]] = field(default_factory=dict)

    def sign(self, href: str, collection: str) -> str:
        """The address of a file of a collection. Raises OSError where no token is given."""
        if not self.token_url or urlsplit(href).scheme not in ("http", "https") or urlsplit(href).query:
            return href
        token, expires = self.tokens.get(collection, ("", datetime.min.replace(tzinfo=UTC)))
        if datetime.now(UTC) + _EARLY >= expires:
            token, expires = self._token(collection)
            self.tokens[collection] = (token, expires)
        return f"{href}?{token}"

    def _token(self, collection: str) -> tuple[str, datetime]:
        url = self.token_url.replace("{collection}", quote(collection, safe=""))
        places.refuse_private(url, "the item file")
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                said = json.loads(answer.read(_TOKEN_BYTES))
            return str(said["token"]), datetime.fromisoformat(str(said["msft:expiry"]).replace("Z", "+00:00"))
        except (urllib.error.URLError, ValueError, KeyError, TypeError) as error:
            raise OSError(f"{url} gives no token: {error}") from error
