"""What results say of the tokens they used: one reader for each type, one module for each provider.

To add a provider, write a module like `google` and give it its rows in `families`.
"""

from instrument.usage.adding import total
from instrument.usage.families import prepare, stream_for
from instrument.usage.http import is_unread, read_wrapped
from instrument.usage.merging import new_merge
from instrument.usage.readers import read_raised, reader_for
from instrument.usage.reading import Merge, Reader, Reading, Readings, StreamClass

__all__ = [
    "Merge",
    "Reader",
    "Reading",
    "Readings",
    "StreamClass",
    "is_unread",
    "new_merge",
    "prepare",
    "read_raised",
    "read_wrapped",
    "reader_for",
    "stream_for",
    "total",
]
