"""What the tests of packaging share: Node and the tools that are installed with it, and a person's machine."""

from tests.cli.conftest import fresh_key as fresh_key
from tests.cli.conftest import running as running
from tests.cli.conftest import world as world
from tests.clients.conftest import home_of as home_of
