"""A simulated Clore.ai marketplace that speaks the real one's HTTP. It imports nothing else of this package, so
that a mistake in the client can't be repeated here and pass unseen."""

from .options import SANDBOX_KEY, Options, add_arguments, from_args
from .run import Running, create_app, serve, start_in_thread

__all__ = ["SANDBOX_KEY", "Options", "Running", "add_arguments", "create_app", "from_args", "serve", "start_in_thread"]
