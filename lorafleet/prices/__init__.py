"""Dated price books and what platforms can do, as data: `providers/<platform>/prices.json` (docs/prices.md).

book = load_book("runpod")
price = cheapest(book, gpu="L4", market="serverless")
usd_per_hour(price), book.as_of(price), book.sources[price.source].url
"""

from .book import VERSION, Book, Market, Price
from .files import dump, load_book, load_books, path_of, platforms, write_book
from .lookup import cheapest, current, matching, usd_per_hour

__all__ = [
    "VERSION",
    "Book",
    "Market",
    "Price",
    "cheapest",
    "current",
    "dump",
    "load_book",
    "load_books",
    "matching",
    "path_of",
    "platforms",
    "usd_per_hour",
    "write_book",
]
