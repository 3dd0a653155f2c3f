"""What can stop a job.

ShortlistError
└── JobError                    a step stopped; what it was writing is not visible
    ├── MissingDatasetError     the step before has not run
    ├── DatasetDamagedError     a dataset is there and cannot be read as it was written
    ├── DatasetBusyError        another process is making the same dataset, or has made one anew that is read
    ├── SourceError             your own tables cannot be read as the configuration says
    │   └── TooManyRejectedError   more rows are malformed than `data.max_rejected_share` allows
    ├── NothingToTrainError     the train split is empty
    ├── TrainingDivergedError   the loss is not a number, or exactly zero
    ├── NothingToTuneError      nobody is in the validation split, so that no setting is better than another
    ├── BadVectorsError         an embedding is NaN or infinite
    ├── MissingEncoderError     the sentence encoder that the configuration asks for is not installed
    ├── NothingToJudgeError     there are test interactions, and nobody's list can be judged by them
    └── NoJavaError             Spark has no Java to run on
"""

from __future__ import annotations

from schemas.errors import ShortlistError


class JobError(ShortlistError):
    """Raised when a step of the batch journey stops."""


class MissingDatasetError(JobError):
    """Raised when a step needs a dataset that has not been made."""


class DatasetDamagedError(JobError):
    """Raised when a dataset is there, and its manifest cannot be read or files of it are not as they were written."""


class DatasetBusyError(JobError):
    """Raised when another process is making the same dataset, or has made an input anew while it was read."""


class SourceError(JobError):
    """Raised when an input table is missing, unreadable, empty, or lacks a column that the configuration names."""


class TooManyRejectedError(SourceError):
    """Raised when the share of malformed rows exceeds `data.max_rejected_share`."""


class NothingToTrainError(JobError):
    """Raised when there is no interaction in the train split."""


class NothingToTuneError(JobError):
    """Raised when settings cannot be compared: the validation split is empty."""


class TrainingDivergedError(JobError):
    """Raised when the loss of a training step is NaN, infinite or exactly zero."""


class BadVectorsError(JobError):
    """Raised when an embedding holds NaN or infinity."""


class MissingEncoderError(JobError):
    """Raised when `train.text` asks for sentences and the extra that brings their encoder is not installed."""


class NothingToJudgeError(JobError):
    """Raised when there are test interactions and no user's list can be judged by them."""


class NoJavaError(JobError):
    """Raised when neither the machine nor the environment has a Java that Spark runs on."""
