"""Read a region's prices from AWS's price list; it needs boto3 (the extra `aws`).

The products are found by the usage types that the EFS guide lists ("Understanding billing and usage
reports for Amazon EFS"), of which a region's have a prefix such as `EUC1-`.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from typing import Any

import boto3  # type: ignore[import-untyped]
import botocore.config  # type: ignore[import-untyped]
import botocore.exceptions  # type: ignore[import-untyped]

from efsstate.errors import EfsStateError

_HOME = "us-east-1"  # the API is in a few regions only
_CONFIG = botocore.config.Config(
    connect_timeout=5, read_timeout=30, retries={"mode": "standard", "max_attempts": 4}
)
# (table, key): the usage type without its prefix, and the attributes that must hold.
_PRODUCTS = {
    ("storage", "standard"): ("TimedStorage-ByteHrs", {}),
    ("storage", "one_zone"): ("TimedStorage-Z-ByteHrs", {}),
    ("storage", "ia"): ("IATimedStorage-ByteHrs", {}),
    ("storage", "ia_elastic"): ("IATimedStorage-ET-ByteHrs", {}),
    ("storage", "ia_one_zone"): ("IATimedStorage-Z-ByteHrs", {}),
    ("storage", "archive"): ("ArchiveTimedStorage-ByteHrs", {}),
    ("storage", "ia_access_gb"): ("IADataAccess-Bytes", {"accessType": "Read"}),
    ("storage", "archive_access_gb"): (
        "ArchiveDataAccess-Bytes",
        {"accessType": "Read"},
    ),
    ("elastic", "read_gb"): ("ETDataAccess-Bytes", {"accessType": "Read"}),
    ("elastic", "write_gb"): ("ETDataAccess-Bytes", {"accessType": "Write"}),
    ("provisioned", "month_per_mib"): ("ProvisionedTP-MiBpsHrs", {}),
}
_UNITS = ("GB-Mo", "GB", "MiBps-Mo")


def read(region: str, client: Any = None) -> dict[tuple[str, str], float]:
    """Return the EFS prices of a region by table and key, without those that the list lacks.

    `client` is one of the Pricing API, by default boto3's. Raise EfsStateError without credentials
    or permission, or if the list has nothing for the region.
    """
    try:
        client = client or boto3.client("pricing", region_name=_HOME, config=_CONFIG)
        products = list(_products(client, region))
    except botocore.exceptions.NoCredentialsError as error:
        raise EfsStateError("price list: no AWS credentials; log in, or set AWS_PROFILE") from error
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
        raise EfsStateError(f"price list: {error}") from error
    prices: dict[tuple[str, str], float] = {}
    for place, (usage, attributes) in _PRODUCTS.items():
        for product in products:
            price = _price(product, usage, attributes)
            if price is not None:
                prices[place] = price
    if not prices:
        raise EfsStateError(f"price list: it has no EFS prices for {region}; is that a region?")
    return prices


def _products(client: Any, region: str) -> Iterator[dict[str, Any]]:
    pages = client.get_paginator("get_products").paginate(
        ServiceCode="AmazonEFS",
        Filters=[{"Type": "TERM_MATCH", "Field": "regionCode", "Value": region}],
    )
    for page in pages:
        for text in page["PriceList"]:
            product = json.loads(text)
            if isinstance(product, dict):
                yield product


def _price(product: dict[str, Any], usage: str, attributes: dict[str, str]) -> float | None:
    """Return the price on demand of a product of this usage type, or None if it is another."""
    known = product.get("product", {}).get("attributes", {})
    if not re.fullmatch(rf"([A-Z0-9]+-)?{re.escape(usage)}", known.get("usagetype", "")):
        return None
    if any(known.get(name) != value for name, value in attributes.items()):
        return None
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term.get("priceDimensions", {}).values():
            price = float(dimension.get("pricePerUnit", {}).get("USD", "nan"))
            if dimension.get("unit") in _UNITS and price > 0:
                return price
    return None


def as_toml(
    prices: dict[tuple[str, str], float], region: str, today: dt.date
) -> tuple[str, list[str]]:
    """Return the file of prices, for `efsstate plan --prices`, and the names of missing ones."""
    lines = [
        '# efsstate plan --prices FILE; dollars, "gb" is 2^30 bytes',
        f'region = "{region}"',
        f'read = "{today.isoformat()}"',
        'source = "AWS Price List Query API"',
    ]
    for table in dict.fromkeys(table for table, _ in prices):
        lines += ["", f"[{table}]"]
        lines += [f"{key} = {price!r}" for (name, key), price in prices.items() if name == table]
    missing = [f"[{table}] {key}" for table, key in _PRODUCTS if (table, key) not in prices]
    return "\n".join(lines) + "\n", missing
