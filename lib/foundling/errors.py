"""The errors a user can mend: each message names the value or file, what is wrong with it and what to do."""


class FoundlingError(Exception):
    """Something the user can mend: the message names the value or file, what is wrong with it and what to do."""


class ImageError(FoundlingError):
    """An image file cannot be used."""


class DataMissing(FoundlingError):
    """A dataset, or part of it, is not where it is expected."""


class WeightsError(FoundlingError):
    """A network's weights are missing or do not fit."""


class ParameterError(FoundlingError):
    """A parameter is unknown, has the wrong type or lies outside its legal values."""


class TrainingError(FoundlingError):
    """A training run cannot go on: its loss is no number, for instance."""
