from tests.servicekit.worker_queues import *  # noqa: F403 - with the settings of this service
