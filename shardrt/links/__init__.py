"""Links: framed JSON messages over Unix sockets, WebSockets, or within one process."""
