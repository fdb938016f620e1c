"""Who sets up a server."""

from components.audit.log import Actor

ROOT = Actor("root", assured=True, how="os-user")
