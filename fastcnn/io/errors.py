"""The one error for files that are not what they should be."""


class FileFormatError(ValueError):
    """A file is truncated, damaged, hostile or of the wrong kind; nothing was changed by reading it."""
