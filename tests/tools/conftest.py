"""These tests are of no service; some use what the services do."""

from tests import own_servers

own_servers.provide("products")
