"""Rent GPUs on the Clore.ai marketplace from an AI assistant, with a person's yes before anything is spent."""

__version__ = "0.1.0"
