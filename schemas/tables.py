"""Arrow schemas of the datasets between the steps, in journey order.

`?` in a comment: may be null. Missing text is "", never null. Times are UTC epoch seconds.
`item_index` and `user_index` number the ids of a run in byte order from 0. The *dense* index, used from `candidates` on
and inside a version, numbers the same items so that neighbours in embedding space are neighbours in memory.
"""

from __future__ import annotations

import pyarrow as pa

TRAIN, VALIDATION, TEST = 0, 1, 2
"""Values of `split`."""

INTERACTIONS = pa.schema(
    [
        pa.field("user_index", pa.int32(), nullable=False),
        pa.field("item_index", pa.int32(), nullable=False),
        pa.field("event", pa.string(), nullable=False),
        pa.field("weight", pa.float32(), nullable=False),
        pa.field("time", pa.int64(), nullable=False),
        pa.field("session_id", pa.string()),
        pa.field("device", pa.string()),
        pa.field("consumed", pa.bool_(), nullable=False),
        pa.field("split", pa.int8(), nullable=False),
    ]
)

ITEMS = pa.schema(
    [
        pa.field("item_index", pa.int32(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("brand", pa.string(), nullable=False),
        pa.field("price", pa.float32()),
        pa.field("released", pa.int64()),
        pa.field("in_stock", pa.bool_(), nullable=False),
        pa.field("interactions", pa.int64(), nullable=False),  # of the train split, of a weight above 0
    ]
)

USERS = pa.schema(
    [
        pa.field("user_index", pa.int32(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("segment", pa.string(), nullable=False),
        pa.field("features", pa.list_(pa.string()), nullable=False),  # one per data.users.columns
        pa.field("interactions", pa.int64(), nullable=False),  # of the train split, of a weight above 0
        pa.field("has_row", pa.bool_(), nullable=False),  # in your table of users
    ]
)

REJECTED = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("row", pa.string(), nullable=False),  # the raw row as JSON
        pa.field("reason", pa.string(), nullable=False),
    ]
)

ITEM_EMBEDDINGS = pa.schema(
    [
        pa.field("item_index", pa.int32(), nullable=False),
        pa.field("vector", pa.list_(pa.float32()), nullable=False),
    ]
)

USER_EMBEDDINGS = pa.schema(
    [
        pa.field("user_index", pa.int32(), nullable=False),
        pa.field("vector", pa.list_(pa.float32()), nullable=False),
    ]
)

USER_STATES = pa.schema(
    [
        *USER_EMBEDDINGS,
        # What the vector is made from: base + matrix · pooled history, and then perhaps brought to length 1.
        pa.field("base", pa.list_(pa.float32()), nullable=False),
        pa.field("history_items", pa.list_(pa.int32()), nullable=False),  # item_index, oldest first
        pa.field("history_weights", pa.list_(pa.float32()), nullable=False),  # of their events
    ]
)
"""What `embeddings` has of users; whoever needs the vectors only reads `USER_EMBEDDINGS` of it."""

CANDIDATES = pa.schema(
    [
        pa.field("user_index", pa.int32(), nullable=False),
        pa.field("items", pa.list_(pa.int32()), nullable=False),  # dense index, best first
        pa.field("scores", pa.list_(pa.float32()), nullable=False),
    ]
)

LISTS = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),  # popular or trending
        pa.field("segment", pa.string(), nullable=False),  # "": everybody
        pa.field("items", pa.list_(pa.int32()), nullable=False),  # dense index, best first
        pa.field("scores", pa.list_(pa.float32()), nullable=False),
    ]
)
