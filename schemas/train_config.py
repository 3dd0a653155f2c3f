"""The settings of what is learned: the towers, and the weights of the re-ranker's signals."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from schemas.section import Amount, Count, Duration, Positive, Section, Share


class Train(Section, frozen=True):
    """The two towers."""

    seed: Count = 7
    keep_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    """Days for which a trained model is kept: as long as the workspace has one that is no older and was made with the
    same settings, no new one is trained. Users and items that do not change then keep their vectors, which is what
    `retrieve.changed_only` builds on; new ones are known by content and history alone. Ignored with
    `split.strategy = per_user`, where a kept model could have learned what it is judged by. 0: train every day."""
    dimensions: Annotated[int, Meta(ge=4, le=1024)] = 64
    max_epochs: Count = 4
    """The learning rate falls to 0 over this many epochs. 0: the towers stay as `initialise` made them."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """`cosine`: vectors of length 1. `dot`: free vectors, which start from a factorisation that has been taught to
    rank; better where users are known by many interactions. `shortlist tune` tells which."""
    factor_epochs: Count = 20
    """With `dot`: epochs in which the factorisation is taught to rank; the validation slice chooses the best."""
    teachers: Annotated[int, Meta(ge=1, le=16)] = 1
    """With `dot`: how many times the factorisation is taught, each time with other random numbers. The results and the
    factorisations form an ensemble that is distilled into `dimensions`. A second teacher adds half a percent of
    recall and half as much time again."""
    patience: Positive = 2
    """Epochs without a better candidate recall on the validation slice after which training stops."""
    refit: bool = True
    """Train anew on train and validation split together, for as many epochs as the validation split chose."""
    examples_per_epoch: Count = 300_000
    """Examples drawn for an epoch: bounds its time on large data. 0: all there are."""
    memory_mb: Positive = 1024
    """Megabytes that the interactions in training and those read ahead may take. Where there are more, training takes
    a few files of `prepared` at a time and shuffles examples within these only. It never takes less than one file
    (up to half a million interactions, about 250 MB). What is kept per user and item comes on top."""
    example_half_life_days: Duration = 30.0
    """With a split by time, an example this much older than the newest counts half."""
    batch_size: Annotated[int, Meta(ge=8)] = 4096
    negatives: Annotated[int, Meta(ge=1, le=1_000_000)] = 512
    """Items drawn per batch and shared by all of its examples."""
    learning_rate: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.003
    weight_decay: Annotated[float, Meta(ge=0.0, le=1000.0)] = 0.0
    temperature: Annotated[float, Meta(gt=0.0)] = 0.1
    """Divides the cosine between user and item before the softmax."""
    popularity_debias: Share = 0.0
    """Share of an item's (logarithmic) popularity that the towers are kept from learning. Lists then hold more of the
    long tail and get fewer hits; `evaluate` shows both. 0: popular items stay as likely as in the data. Above 0 all
    epochs are trained, because recall, which popular items dominate, is no guide to the best one."""
    initialise: Literal["factors", "random"] = "factors"
    """Where the id embeddings start: a matrix factorisation, far better on small data, or small random numbers."""
    user_id_share: Share = 0.3
    """Length of a user's id embedding at the start, against an item's, with `factors`. Lower on small data."""
    id_dropout: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.1
    """Share of ids hidden in training, so that content and history learn to carry new items and users."""
    history_length: Annotated[int, Meta(ge=1, le=10_000)] = 50
    """Most recent interactions of a user that the user tower pools."""
    title_buckets: Annotated[int, Meta(ge=1, le=10_000_000)] = 4096
    """Hash buckets of title words."""
    text: Literal["words", "sentences"] = "words"
    """What the item tower reads of an item's text. `words`: hashed words of the title. `sentences`: also the vector
    that a frozen sentence encoder makes of title and category, which helps to find items that nobody has met; needs
    the extra `text`."""
    validation_users: Positive = 4000
    """Users of the validation slice that early stopping looks at."""
    recall_at: Positive = 100
    """Length of the candidate list whose recall chooses the epoch."""
    order: Literal["learned", "products"] = "learned"
    """How the items that were found for a user are put in order. `learned`: the validation days say how much counts,
    beside the product of the vectors, that many have met the item of late and that the user had met it before; needs
    `split.strategy = time`, and a hundred hits to learn from. With `popularity_debias` it does not count what many have
    met. `products`: the product alone."""
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    """Processes that train together, as tasks of one Spark stage, each on its share of the users; `batch_size` is that
    of all together. 1: train in this process, without Spark."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    """Threads of torch on a CPU. 0: one per core or, with several workers, as many as Spark gives a task. The same
    number gives the same weights to the last bit; another number may change the last digits."""


class Ranker(Section, frozen=True):
    """The weights of the re-ranker's signals."""

    learn: bool = True
    """Learn the weights from the sessions since an earlier version. False: a version gets the default weights."""
    fewest_lists: Annotated[int, Meta(ge=5)] = 500
    """With fewer lists to learn from, the weights of the version before stay. One list in five judges the others."""
    most_lists: Positive = 20_000
    """Lists to learn from, drawn at random where there are more: bounds time and memory (10 KB each). Drawing takes
    some 150 bytes for each interaction since the earlier version."""
    penalty: Amount = 1e-4
    """Of the squared weights, after all signals were brought to one scale."""
    fewest_clicks: Count = 1000
    """With at least so many clicks on answers in `data.interactions.serving_log`, learn from these instead of replaying
    sessions. With fewer, weights that clicks have taught stay. 0: always replay sessions."""
    log_days: Annotated[float, Meta(gt=0.0, le=3650.0)] = 14.0
    """Learn from the clicks and answers of so many days, up to the run's own."""
    position_eta: Annotated[float, Meta(ge=0.0, le=3.0)] = 1.0
    """A click at position k counts k to this power, unless the places left to chance are enough to measure the power.
    0: every click counts alike."""
    most_weight: Annotated[float, Meta(ge=1.0)] = 20.0
    """No click counts more than so many clicks at the top."""

    def __post_init__(self) -> None:
        for name, fewest in (("fewest_lists", self.fewest_lists), ("fewest_clicks", self.fewest_clicks)):
            if fewest > self.most_lists:
                raise ValueError(
                    f"{name} {fewest} is above most_lists {self.most_lists}: so many are never drawn; lower the one or "
                    "raise the other"
                )
