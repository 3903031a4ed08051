"""The sandbox's Image Builder as a service: the weldr API on a unix socket."""
