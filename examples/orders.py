#!/usr/bin/env python3
"""Prints orders in DynamoDB JSON, one on each line, for the table that orders-table.json describes.

    orders.py [COUNT]           10,000 orders unless COUNT is given

The orders are the same at each run. Some have the attribute `ttl`, in 2040, by which TTL would remove them.
"""

import json
import random
import sys

STATUSES = ["draft", "paid", "shipped", "returned"]
CITIES = ["Wien", "Zürich", "København", "Łódź"]
TTL = 2_208_988_800


def order(number, chance):
    """Returns an order: three of a customer have the same partition key."""
    lines = [
        {"M": {"sku": {"S": f"sku-{chance.randrange(1000):03}"}, "count": {"N": str(chance.randint(1, 5))}}}
        for _ in range(chance.randint(1, 4))
    ]
    item = {
        "pk": {"S": f"customer-{number // 3:05}"},
        "sk": {"N": str(number)},
        "status": {"S": chance.choice(STATUSES)},
        "total": {"N": f"{chance.randint(1, 99999) / 100:.2f}"},
        "address": {"M": {"city": {"S": chance.choice(CITIES)}}},
        "lines": {"L": lines},
        "tags": {"SS": sorted({"new", chance.choice(["gift", "express", "regular"])})},
    }
    if number % 10 == 0:
        item["ttl"] = {"N": str(TTL + number)}
    return item


def main():
    arguments = sys.argv[1:] or ["10000"]
    if len(arguments) != 1 or not arguments[0].isdecimal():
        sys.exit(f"usage: orders.py [NUMBER]: the number of orders is a whole number, not {' '.join(arguments)}")
    count = int(arguments[0])
    chance = random.Random(14)
    for number in range(count):
        print(json.dumps({"Item": order(number, chance)}, ensure_ascii=False))


if __name__ == "__main__":
    main()
