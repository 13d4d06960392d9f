"""A simulated Clore.ai marketplace that speaks the same HTTP as the real one. It imports nothing else from this
package, so that it can't repeat a mistake of the client and hide it."""

from .options import SANDBOX_KEY, Options, add_arguments, from_args
from .run import Running, serve, start_in_thread

__all__ = ["SANDBOX_KEY", "Options", "Running", "add_arguments", "from_args", "serve", "start_in_thread"]
