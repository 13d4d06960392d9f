"""What the tests of packaging share: Node and the tools that are installed with it."""

from tests.clients.conftest import home_of as home_of
