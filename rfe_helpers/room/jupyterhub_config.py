# The configuration of a room's JupyterHub, which `rfe room start` runs with RFE_ROOM.
import os
import sys

from tornado import web

from rfe_helpers.core.network import LOOPBACK
from rfe_helpers.room import page
from rfe_helpers.room.authenticator import SeatAuthenticator
from rfe_helpers.room.room import Room
from rfe_helpers.room.settings import TRAINER

room = Room(os.environ["RFE_ROOM"])
settings = room.settings
tokens = room.secrets
hub = room.directory / "hub"
c = get_config()  # noqa: F821

c.JupyterHub.bind_url = f"https://{settings.address}:{settings.port}"
c.JupyterHub.hub_bind_url = f"http://{LOOPBACK}:{room.port('hub')}"
c.JupyterHub.db_url = f"sqlite:///{hub / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(hub / "cookie_secret")
# The proxy and the seats outlive the hub.
c.JupyterHub.cleanup_servers = False
c.JupyterHub.cleanup_proxy = False
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = f"http://{LOOPBACK}:{room.port('proxy-api')}"
c.ConfigurableHTTPProxy.auth_token = tokens["proxy"]
c.JupyterHub.api_page_default_limit = c.JupyterHub.api_page_max_limit = 1000
c.JupyterHub.concurrent_spawn_limit = 0  # no limit: a room logs in at one moment
c.JupyterHub.active_server_limit = len(settings.people) + 1

c.JupyterHub.authenticator_class = SeatAuthenticator
c.SeatAuthenticator.hashes = lambda: room.hashes
c.Authenticator.allowed_users = {*settings.people, TRAINER}
c.Authenticator.allow_existing_users = False
# The trainer has the page and no seat.
c.JupyterHub.default_url = lambda handler: (
    "/services/room/" if getattr(handler.current_user, "name", "") == TRAINER else ""
)


def refuse_trainer(spawner):
    if spawner.user.name == TRAINER:
        raise web.HTTPError(403, "the trainer has no seat: open /services/room/")


c.Spawner.pre_spawn_hook = refuse_trainer
c.Spawner.default_url = "/lab/tree/00-start-here.ipynb"
c.Spawner.start_timeout = 180
c.Spawner.http_timeout = 120
c.Spawner.poll_interval = 10  # how soon a seat that ended is noticed
room.engine.configure(c, room.port("hub"))

c.JupyterHub.services = [
    {
        "name": "room",
        "url": f"http://{LOOPBACK}:{room.port('page')}",
        "api_token": tokens["page"],
        # It ends with the hub, also when that is killed.
        "command": ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", page.__name__],
        "environment": {"RFE_ROOM": str(room.directory)},
        "oauth_no_confirm": True,
    }
]
_EVERY_SEAT = ["list:users", "read:users:activity", "read:servers", "admin:servers"]
c.JupyterHub.load_roles = [
    # Not access:servers: with `tokens` the page makes one for each seat, which opens that alone.
    {"name": "room-page", "scopes": [*_EVERY_SEAT, "tokens", "delete:users"], "services": ["room"]},
    {
        "name": "room-trainer",
        "scopes": [*_EVERY_SEAT, "access:servers", "access:services!service=room", "admin-ui"],
        "users": [TRAINER],
    },
]
